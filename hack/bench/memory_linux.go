package main

import (
	"os"
	"syscall"
)

// peakMemory is the process's largest resident set, in bytes. Linux counts the
// moment before exec too, when the child still shared this program's memory:
// the figure is never below this program's own.
func peakMemory(state *os.ProcessState) int64 {
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		return usage.Maxrss << 10
	}
	return 0
}
