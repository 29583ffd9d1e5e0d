//go:build !windows

package cli

import "os"

func understandsEscapes(*os.File) bool { return true }
