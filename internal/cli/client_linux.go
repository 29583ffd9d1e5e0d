package cli

import (
	"bytes"
	"fmt"
	"os"
)

// clientProcess names the process that runs us: its pid, and its start time
// because pids come back. Field 22 of proc_pid_stat(5), behind a command name
// that may hold spaces and parentheses.
func clientProcess() string {
	pid := os.Getppid()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return fmt.Sprint(pid)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return fmt.Sprint(pid)
	}
	return fmt.Sprintf("%d@%s", pid, fields[19])
}

// parentName is the name of the program that runs us.
func parentName() string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid())) // it may have ended
	return string(bytes.TrimSpace(name))
}
