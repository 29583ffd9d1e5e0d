//go:build !linux

package kube

import "os/exec"

// DieWithParent does nothing on this system.
func DieWithParent(*exec.Cmd) {}
