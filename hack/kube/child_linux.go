package kube

import (
	"os/exec"
	"syscall"
)

// DieWithParent makes the kernel kill a child, which is not started yet, when
// its parent's thread ends: lock the goroutine to its thread until the child
// has ended. On other systems than Linux it does nothing.
func DieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
