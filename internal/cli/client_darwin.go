package cli

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// clientProcess names the process that runs us: its pid, and its start time
// because pids come back.
func clientProcess() string {
	pid := os.Getppid()
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return fmt.Sprint(pid)
	}
	start := info.Proc.P_starttime
	return fmt.Sprintf("%d@%d.%06d", pid, start.Sec, start.Usec)
}

// parentName is the name of the program that runs us.
func parentName() string {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", os.Getppid())
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Proc.P_comm[:])
}
