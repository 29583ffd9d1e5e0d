//go:build !windows

package cli

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

func systemPolicy() string { return "/etc/kubectl-oidc_device/policy.yaml" }

// readPolicyFile reads a file that the administrator or this user owns, and
// that nobody else can write.
func readPolicyFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hang the program
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to another user", path)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("%s can be written by others (mode %04o)", path, info.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
