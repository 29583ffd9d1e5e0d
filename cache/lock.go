package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// Notes is what the holders of a session's lock leave in the lock file, for
// those who wait and for those who come later. It holds no secret.
type Notes struct {
	// Holder is who has, or had, the lock.
	Holder Holder `json:"holder"`
	// Prompt is the login that the holder waits for, if it does.
	Prompt *Prompt `json:"prompt,omitempty"`
	// Failure is the last login that was not approved; nil after a success.
	Failure *Failure `json:"failure,omitempty"`
	// Trouble is what the last holder failed with, for those who waited for it:
	// they need not find out for themselves, one after the other.
	Trouble *Trouble `json:"trouble,omitempty"`
}

// Trouble is the end of a renewal, or of a login that nobody was asked for yet.
type Trouble struct {
	Message string    `json:"message"`
	Status  int       `json:"status"` // the exit status of the process that met it
	At      time.Time `json:"at"`
}

// Holder is a process with the lock.
type Holder struct {
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// Prompt is a login that waits for a person's approval.
type Prompt struct {
	VerificationURI         string    `json:"verification_uri"`
	VerificationURIComplete string    `json:"verification_uri_complete,omitempty"`
	UserCode                string    `json:"user_code"`
	ExpiresAt               time.Time `json:"expires_at"`
	Issuer                  string    `json:"issuer"`
	ClientID                string    `json:"client_id"`
	Scopes                  []string  `json:"scopes"`
}

// Failure is a login that was denied, that expired or that timed out.
type Failure struct {
	Kind   string    `json:"kind"`
	Status int       `json:"status"` // the exit status of the process that ran it
	At     time.Time `json:"at"`
	Count  int       `json:"count"`  // failures in a row
	Client string    `json:"client"` // the client process that asked: its pid and start time
	// Terminal is true if a person at a terminal asked.
	Terminal bool `json:"terminal,omitempty"`
}

// waitStep is the mean time between two tries for a lock that is taken.
const waitStep = 50 * time.Millisecond

// Lock takes the session's lock, across processes. It can be interrupted: it
// tries again and again rather than block in the kernel.
//
// As long as another process has the lock, Lock calls waiting (if it is not
// nil) before each try with the notes in the lock file; an error that waiting
// returns ends the wait and is Lock's own. A holder that dies, however it dies,
// gives the lock up.
//
// An error that is neither the context's nor waiting's means that no lock can
// be had in this folder.
func (d *Disk) Lock(ctx context.Context, id string, waiting func(Notes) error) (unlock func(), err error) {
	if err := d.makeDir(); err != nil {
		return nil, err
	}
	path := d.lockPath(id)
	// The lock file is made here, where links are not followed.
	f, err := openNotes(path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	f.Close()
	lock := flock.New(path, flock.SetFlag(os.O_RDWR), flock.SetPermissions(0o600))
	for {
		ok, err := lock.TryLock()
		if err != nil {
			return nil, err
		}
		if ok {
			break
		}
		if waiting != nil {
			if err := waiting(d.Notes(id)); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(waitStep/2 + rand.N(waitStep)):
		}
	}
	// An error leaves the waiters without a name to show, and nothing else.
	_ = d.Annotate(id, func(n *Notes) { n.Holder, n.Prompt = Holder{PID: os.Getpid(), Since: time.Now()}, nil })
	return func() { _ = lock.Unlock() }, nil // the kernel unlocks at the latest when the process ends
}

// Locks gives the ids of all sessions that ever had a lock.
func (d *Disk) Locks() ([]string, error) { return d.names(lockName) }

// Locked says whether somebody has the session's lock at this moment.
func (d *Disk) Locked(id string) bool {
	lock := flock.New(d.lockPath(id), flock.SetFlag(os.O_RDWR))
	ok, err := lock.TryLock()
	if ok {
		_ = lock.Unlock() // closing it would do as well
	}
	return err == nil && !ok
}

// Notes reads the session's notes; those that are not there, or are being
// written, are empty.
func (d *Disk) Notes(id string) Notes {
	var n Notes
	f, err := openNotes(d.lockPath(id), os.O_RDONLY)
	if err != nil {
		return n
	}
	defer f.Close()
	b := make([]byte, notesSize)
	k, _ := f.ReadAt(b, notesStart) // a short read is the rule
	if json.Unmarshal(bytes.TrimSpace(b[:k]), &n) != nil {
		return Notes{}
	}
	return n
}

// Annotate changes the session's notes. Only the holder of the lock may call it.
func (d *Disk) Annotate(id string, change func(*Notes)) error {
	n := d.Notes(id)
	change(&n)
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	f, err := openNotes(d.lockPath(id), os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	// One write of one length: a reader sees the old notes or the new, or a
	// mixture that does not parse.
	b = append(b, bytes.Repeat([]byte{' '}, max(0, notesSize-len(b)))...)
	_, err = f.WriteAt(b, notesStart)
	return err
}

// On Windows the lock covers the file's first byte, and covered bytes cannot
// be read by others: the notes begin behind it.
const (
	notesStart = 1
	notesSize  = 8 << 10
)

func (d *Disk) lockPath(id string) string { return filepath.Join(d.dir, id+".lock") }
