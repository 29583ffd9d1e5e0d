package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"
)

// File replaces a file whole, or makes it. It stands in for renameio, which
// exports nothing on Windows. The access list is the folder's.
func File(path string, b []byte, _ fs.FileInfo) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path))
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
		err = os.Rename(f.Name(), path)
		busy := errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
		if !busy || delay > time.Second {
			return err
		}
		time.Sleep(delay)
	}
}
