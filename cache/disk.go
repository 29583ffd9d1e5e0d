package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/internal/replace"
)

// maxFile bounds what is read of one file.
const maxFile = 4 << 20

// Disk keeps each session in a file of its own. Names in its folder:
//
//	<id>.json                a session
//	<id>.keyring.json        a session without its tokens: see Keyring
//	<id>.lock                its lock, and the notes of who holds it
//	<id>.corrupt-<time>      a session that did not parse, set aside
//	document-<hash>.json     a public document of an issuer (discovery, keys)
//	.<one of these><digits>  what is being written, or was when a process was killed
//
// Nothing else in the folder is ever changed or deleted.
type Disk struct{ dir string }

// NewDisk does not touch the folder; the first Save or Lock makes it.
func NewDisk(dir string) *Disk { return &Disk{dir: dir} }

// Path is the session's file.
func (d *Disk) Path(id string) string { return filepath.Join(d.dir, id+".json") }

// Load implements Storage. It takes no lock: a file is replaced whole.
func (d *Disk) Load(id string) (*Entry, error) {
	b, err := d.read(id + ".json")
	if err != nil {
		return nil, err
	}
	e, err := decode(b, id)
	if err != nil {
		return nil, &CorruptError{Path: d.Path(id), Err: fmt.Errorf("does not parse: %w", err)}
	}
	return e, nil
}

// Save implements Storage: it returns after the file and its folder have been
// synced.
func (d *Disk) Save(e *Entry) error {
	b, err := encode(e)
	if err != nil {
		return err
	}
	if err := d.write(e.Key.ID()+".json", b); err != nil {
		return err
	}
	d.sweep()
	return nil
}

// unfinished recognises the name of a temporary file of replace.File.
func unfinished(name string) bool {
	name, hidden := strings.CutPrefix(name, ".")
	target, digits, ok := strings.Cut(name, ".json")
	target = strings.TrimSuffix(strings.TrimPrefix(target, "document-"), ".keyring")
	return hidden && ok && isID(target) && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// sweep removes what killed processes left half written: it may hold tokens.
// Whatever is younger than a minute may still be written by somebody.
func (d *Disk) sweep() {
	entries, _ := os.ReadDir(d.dir) // what cannot be listed now is swept next time
	for _, e := range entries {
		if !unfinished(e.Name()) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > time.Minute {
			_ = os.Remove(filepath.Join(d.dir, e.Name())) // likewise
		}
	}
}

// Delete implements Storage. The lock file stays: another process may be
// waiting on it.
func (d *Disk) Delete(id string) error {
	err := os.Remove(d.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SetAside implements Storage.
func (d *Disk) SetAside(id string) (string, error) { return d.setAside(id, d.Path(id)) }

func (d *Disk) setAside(id, path string) (string, error) {
	to := filepath.Join(d.dir, id+corruptName+time.Now().UTC().Format("20060102T150405.000"))
	return to, os.Rename(path, to)
}

// List gives the ids of all sessions in the folder, readable or not, wherever
// their tokens are.
func (d *Disk) List() ([]string, error) { return d.names(".json", ".keyring.json") }

// Aside gives the paths of what SetAside has moved away.
func (d *Disk) Aside() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if id, _, ok := strings.Cut(e.Name(), corruptName); ok && isID(id) {
			paths = append(paths, filepath.Join(d.dir, e.Name()))
		}
	}
	return paths, err
}

// corruptName stands between the id and the time of what was set aside.
const corruptName = ".corrupt-"

// lockName ends the names of lock files.
const lockName = ".lock"

// names gives the ids of the files whose names are an id and one of these
// endings.
func (d *Disk) names(endings ...string) ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		for _, ending := range endings {
			if id, ok := strings.CutSuffix(e.Name(), ending); ok && isID(id) {
				ids = append(ids, id)
			}
		}
	}
	return slices.Compact(ids), err // one that is being moved has two files
}

// isID: regular expressions would cost a part of each start of the program.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// document is a public document of an issuer, kept for an hour.
type document struct {
	Name      string    `json:"name"`
	FetchedAt time.Time `json:"fetched_at"`
	Body      []byte    `json:"body"`
}

// LoadDocument gives a document that SaveDocument kept under this name, with
// the time at which it was fetched; nil if there is none. A document that
// cannot be read is one that is not there: it will be fetched again.
func (d *Disk) LoadDocument(name string) ([]byte, time.Time) {
	b, err := d.read(documentFile(name))
	if err != nil {
		return nil, time.Time{}
	}
	var doc document
	if json.Unmarshal(b, &doc) != nil || doc.Name != name {
		return nil, time.Time{}
	}
	return doc.Body, doc.FetchedAt
}

// SaveDocument keeps a document under a name, which should say by which trust
// it was fetched: an answer that came over an unverified connection must not
// serve a verified one.
func (d *Disk) SaveDocument(name string, body []byte, fetched time.Time) error {
	b, err := json.Marshal(document{Name: name, FetchedAt: fetched.UTC(), Body: body})
	if err != nil {
		return err
	}
	return d.write(documentFile(name), b)
}

func documentFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "document-" + hex.EncodeToString(sum[:]) + ".json"
}

func (d *Disk) read(name string) ([]byte, error) {
	if err := d.checkDir(); err != nil {
		return nil, err
	}
	f, err := openTrusted(filepath.Join(d.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, &CorruptError{Path: f.Name(), Err: fmt.Errorf("does not parse: larger than %d bytes", maxFile)}
	}
	return b, nil
}

func (d *Disk) write(name string, b []byte) error {
	if err := d.makeDir(); err != nil {
		return err
	}
	return replace.File(filepath.Join(d.dir, name), b, nil)
}

func (d *Disk) makeDir() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	return d.checkDir()
}

// checkDir gives ErrNotFound for a folder that is not there. The folder itself
// may be reached through a symbolic link: people move their caches.
func (d *Disk) checkDir() error {
	info, err := os.Stat(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", d.dir)
	}
	return trustedDir(d.dir, info)
}

// quote makes a path safe to paste into a shell.
func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }
