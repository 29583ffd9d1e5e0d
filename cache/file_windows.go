package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"
)

// On Windows a user's folders are closed to others by their inherited access
// lists, which mode bits do not show: only links are refused here.

func openTrusted(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &UntrustedError{Path: path, Reason: "is not a regular file", Mend: "del " + path}
	}
	return os.Open(path)
}

func trustedDir(string, fs.FileInfo) error { return nil }

// writeAtomic stands in for renameio, which exports nothing on Windows.
func writeAtomic(dir, name string, b []byte) error {
	f, err := os.CreateTemp(dir, "."+name)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // not there after the rename; before it, the first error counts
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	// A reader that has the old file open, or a virus scanner, forbids the
	// rename for a moment.
	for delay := time.Millisecond; ; delay *= 2 {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
		busy := errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
		if !busy || delay > time.Second {
			return err
		}
		time.Sleep(delay)
	}
}

func openNotes(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o600) }
