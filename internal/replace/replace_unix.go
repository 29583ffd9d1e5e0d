//go:build !windows

package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// File replaces a file whole, or makes it: temporary file in the same folder with
// its final mode, synced, renamed, and the folder synced, so that after a power
// loss the name leads to the old content or to the new. The mode is 0600; with
// info, which is of the file that is there, its mode and its owner stay, which
// under sudo are not those of this process.
func File(path string, b []byte, info fs.FileInfo) error {
	mode := fs.FileMode(0o600)
	if info != nil {
		mode = info.Mode().Perm()
	}
	// renameio would otherwise take $TMPDIR where it can, and the mode of the
	// file that it replaces.
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer f.Cleanup() // nothing after the rename; before it, the first error counts
	if info != nil {
		made, err := f.Stat()
		if err != nil {
			return err
		}
		is, ok := made.Sys().(*syscall.Stat_t)
		was, ok2 := info.Sys().(*syscall.Stat_t)
		if ok && ok2 && (is.Uid != was.Uid || is.Gid != was.Gid) {
			if err := f.Chown(int(was.Uid), int(was.Gid)); err != nil {
				return fmt.Errorf("it belongs to user %d, group %d, and would not any more: %w", was.Uid, was.Gid, err)
			}
			if err := f.Chmod(mode); err != nil { // a change of owner takes bits away
				return err
			}
		}
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	// Some file systems cannot sync a folder, and say EINVAL; the content is
	// in place, and there is nothing more to do about it.
	if err := folder.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
