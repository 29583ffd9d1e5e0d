// The program maxrss runs $MAXRSS_OF and writes the largest resident set that
// it had, in KiB, to the file $MAXRSS_TO.
//
// It is small on purpose: Linux counts for a process what its parent had in
// memory when it was started, and the tests have a lot.
package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

func main() {
	c := exec.Command(os.Getenv("MAXRSS_OF"), os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	// It must not outlive a test that has failed. The signal comes when the
	// thread ends that started it.
	runtime.LockOSThread()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); c.ProcessState == nil {
		panic(err)
	}
	usage := c.ProcessState.SysUsage().(*syscall.Rusage)
	if err := os.WriteFile(os.Getenv("MAXRSS_TO"), strconv.AppendInt(nil, usage.Maxrss, 10), 0o600); err != nil {
		panic(err)
	}
	os.Exit(c.ProcessState.ExitCode())
}
