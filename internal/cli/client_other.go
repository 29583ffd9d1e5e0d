//go:build !linux && !darwin && !windows

package cli

import (
	"fmt"
	"os"
)

// clientProcess names the process that runs us by its pid alone.
func clientProcess() string { return fmt.Sprint(os.Getppid()) }

func parentName() string { return "" }
