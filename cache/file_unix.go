//go:build !windows

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openTrusted opens a file that only this user can have written and can read.
// What is judged is the open file, not the name: a name may change hands
// between two calls.
func openTrusted(path string) (*os.File, error) {
	// O_NONBLOCK: a named pipe in the file's place must not hang the program.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK) { // EMLINK: FreeBSD's word for it
		return nil, &UntrustedError{Path: path, Reason: "is a symbolic link", Mend: "rm " + quote(path)}
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = trustedFile(path, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func trustedFile(path string, info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return &UntrustedError{Path: path, Reason: "is not a regular file", Mend: "rm -r " + quote(path)}
	case !ours(info):
		return &UntrustedError{Path: path, Reason: "belongs to another user", Mend: "rm " + quote(path)}
	case info.Mode().Perm()&0o077 != 0:
		return &UntrustedError{Path: path, Reason: fmt.Sprintf("is open to others (mode %04o)", info.Mode().Perm()), Mend: "chmod 600 " + quote(path)}
	}
	return nil
}

// trustedDir lets a folder pass that others may list, for its files are closed
// to them, but not one in which others may put files.
func trustedDir(path string, info fs.FileInfo) error {
	switch {
	case !ours(info):
		return &UntrustedError{Path: path, Reason: "belongs to another user", Mend: "ls -ld " + quote(path)}
	case info.Mode().Perm()&0o022 != 0:
		return &UntrustedError{Path: path, Reason: fmt.Sprintf("can be written by others (mode %04o)", info.Mode().Perm()), Mend: "chmod 700 " + quote(path)}
	}
	return nil
}

func ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// openNotes opens a lock file, but never through a link.
func openNotes(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK) {
		return nil, &UntrustedError{Path: path, Reason: "is a symbolic link", Mend: "rm " + quote(path)}
	}
	return f, err
}
