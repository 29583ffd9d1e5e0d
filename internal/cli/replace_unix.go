//go:build !windows

package cli

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// replaceFile replaces a file whole, or makes it. info is of the one that is
// there, or nil: its mode and its owner stay, which under sudo are not those
// of this process.
func replaceFile(path string, b []byte, info fs.FileInfo) error {
	mode := fs.FileMode(0o600)
	if info != nil {
		mode = info.Mode().Perm()
	}
	// renameio would otherwise take $TMPDIR where it can.
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
	return f.CloseAtomicallyReplace()
}
