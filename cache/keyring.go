package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	keyring "github.com/zalando/go-keyring"
)

// KeyringReason says why the system's keyring was of no use.
type KeyringReason string

const (
	// KeyringAbsent: this login has no keyring (no D-Bus session, no Secret
	// Service, no collection in it; on Windows a login over the network).
	KeyringAbsent KeyringReason = "there is no keyring in this session"
	// KeyringLocked: there is one, and a person must unlock it first.
	KeyringLocked KeyringReason = "the keyring is locked"
	// KeyringTimedOut: a call took longer than 3 s. The keyring may be waiting
	// for a person's consent in a window.
	KeyringTimedOut KeyringReason = "the keyring did not answer within 3s"
	// KeyringFailed is anything else; Err says what.
	KeyringFailed KeyringReason = "the keyring failed"
)

// KeyringError says that the system's keyring could not be asked. Nothing was
// written elsewhere in its place. It holds no secret.
type KeyringError struct {
	Op     string // what was tried: "load", "save", "delete"
	Reason KeyringReason
	Err    error // what the system said; nil where it said nothing
}

func (e *KeyringError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("cannot %s the session: %s", e.Op, e.Reason)
	}
	return fmt.Sprintf("cannot %s the session: %s: %v", e.Op, e.Reason, e.Err)
}

func (e *KeyringError) Unwrap() error { return e.Err }

// Keyring keeps the tokens of each session in the system's keyring (Secret
// Service, Keychain, Credential Manager) and what is not secret in a record,
// <id>.keyring.json, in a Disk's folder. That Disk's locks, notes and documents
// serve its sessions too.
//
// Each session has two places for its tokens in the keyring, and the record
// names the one that counts. Save fills the other one, then replaces the
// record: whatever ends it on the way leaves the old session whole. Before the
// first token goes into the keyring there is a record, so that Delete finds
// whatever was left behind.
//
// Keyrings hang when nobody answers their prompts: no call is waited for longer
// than 3 s (https://github.com/zalando/go-keyring/issues/88).
type Keyring struct{ disk *Disk }

// NewKeyring touches neither the folder nor the keyring.
func NewKeyring(d *Disk) *Keyring { return &Keyring{disk: d} }

const (
	keyringTimeout = 3 * time.Second

	// pieceSize is what every keyring takes in one item: Windows 2,560 bytes,
	// macOS about 2,900 with the names that are used here.
	pieceSize = 2500
)

// The places of a session's tokens in the keyring.
const (
	placeNone = "none" // the first Save began, and did not end
	placeA    = "a"
	placeB    = "b"
)

// keyringRecord is an Entry's record: its tokens are elsewhere.
type keyringRecord struct {
	about
	Place        string     `json:"place"`
	Token        keptSecret `json:"token"`
	RefreshToken keptSecret `json:"refresh_token"`
}

// keptSecret tells a token in the keyring from any other, and from a part of
// itself. Tokens cannot be guessed, so their hash gives nothing away.
type keptSecret struct {
	Pieces int    `json:"pieces"`
	SHA256 string `json:"sha256,omitempty"`
}

// Path is the session's record.
func (k *Keyring) Path(id string) string { return filepath.Join(k.disk.dir, id+".keyring.json") }

// Load implements Storage. It takes no lock. A session whose tokens are not in
// the keyring, or are not those that were saved, gives a *CorruptError.
func (k *Keyring) Load(id string) (*Entry, error) {
	for {
		r, raw, err := k.record(id)
		if err != nil {
			return nil, err
		}
		e := r.entry()
		err = k.ready("load")
		if err == nil {
			e.Token, err = k.get(r, "token", r.Token)
		}
		if err == nil {
			e.RefreshToken, err = k.get(r, "refresh-token", r.RefreshToken)
		}
		if err == nil {
			return e, nil
		}
		// Somebody else may have saved the session meanwhile: then the record
		// is another one, and its tokens are there.
		if _, now, nerr := k.record(id); nerr != nil || !bytes.Equal(raw, now) {
			continue
		}
		var unusable *KeyringError
		if errors.As(err, &unusable) {
			return nil, err
		}
		return nil, &CorruptError{Path: k.Path(id), Err: err}
	}
}

// Describe is Load without the tokens: it does not ask the keyring, and so
// works where that is locked. renewable says whether there is a refresh token.
func (k *Keyring) Describe(id string) (e *Entry, renewable bool, err error) {
	r, _, err := k.record(id)
	if err != nil {
		return nil, false, err
	}
	return r.entry(), r.RefreshToken.Pieces > 0, nil
}

// Check says whether there is a keyring that can be used now; the error is a
// *KeyringError.
func (k *Keyring) Check() error { return k.ready("keep") }

// Save implements Storage: it returns after the tokens have been read back from
// the keyring and the record has been synced.
func (k *Keyring) Save(e *Entry) error {
	if err := k.ready("save"); err != nil {
		return err
	}
	r := keyringRecord{about: describe(e), Place: placeNone}
	was := placeNone
	old, _, err := k.record(r.ID)
	var corrupt *CorruptError
	var untrusted *UntrustedError
	switch {
	case err == nil:
		was = old.Place
	case errors.Is(err, ErrNotFound), errors.As(err, &corrupt), errors.As(err, &untrusted):
		if err := k.write(r); err != nil {
			return err
		}
	default:
		return err
	}
	r.Place = placeA
	if was == placeA {
		r.Place = placeB
	}
	// What an interrupted Save left behind goes first.
	for _, p := range []string{placeA, placeB} {
		if p != was {
			if err := k.clear("save", r.ID, p); err != nil {
				return err
			}
		}
	}
	if r.Token, err = k.set(r, "token", e.Token); err != nil {
		return err
	}
	if r.RefreshToken, err = k.set(r, "refresh-token", e.RefreshToken); err != nil {
		return err
	}
	if err := k.write(r); err != nil {
		return err
	}
	if was != placeNone {
		// The session is saved. Where this fails, the next Save or Delete
		// clears the place.
		_ = k.clear("save", r.ID, was)
	}
	return nil
}

// Delete implements Storage: the tokens first, then the record that leads to
// them. For a session that was never kept here it does not ask the keyring, so
// that the Delete that Storage asks for after a move costs nothing.
func (k *Keyring) Delete(id string) error {
	if _, err := os.Lstat(k.Path(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := k.clearAll(id); err != nil {
		return err
	}
	err := os.Remove(k.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SetAside implements Storage. The tokens of the session are deleted: nothing
// would lead to them any more.
func (k *Keyring) SetAside(id string) (string, error) {
	if err := k.clearAll(id); err != nil {
		return "", err
	}
	return k.disk.setAside(id, k.Path(id))
}

func (k *Keyring) clearAll(id string) error {
	err := k.ready("delete")
	for _, p := range []string{placeA, placeB} {
		if err == nil {
			err = k.clear("delete", id, p)
		}
	}
	return err
}

func (k *Keyring) record(id string) (*keyringRecord, []byte, error) {
	b, err := k.disk.read(filepath.Base(k.Path(id)))
	if err != nil {
		return nil, nil, err
	}
	r, err := decodeKeyring(b, id)
	if err != nil {
		return nil, nil, &CorruptError{Path: k.Path(id), Err: fmt.Errorf("does not parse: %w", err)}
	}
	return r, b, nil
}

func (k *Keyring) write(r keyringRecord) error {
	b, err := seal(r)
	if err != nil {
		return err
	}
	return k.disk.write(filepath.Base(k.Path(r.ID)), b)
}

func decodeKeyring(b []byte, id string) (*keyringRecord, error) {
	var r keyringRecord
	if err := unseal(b, &r); err != nil {
		return nil, err
	}
	if err := r.belongs(id); err != nil {
		return nil, err
	}
	switch {
	case r.Place == placeNone:
		return nil, errors.New("it was not saved to the end")
	case r.Place != placeA && r.Place != placeB:
		return nil, errors.New("it names no place in the keyring")
	case r.Token.Pieces <= 0 && r.RefreshToken.Pieces <= 0:
		return nil, errors.New("it holds no token")
	}
	return &r, nil
}

// get reads a token and makes sure that it is the one that was saved.
func (k *Keyring) get(r *keyringRecord, name string, kept keptSecret) (Secret, error) {
	if kept.Pieces <= 0 {
		return Secret{}, nil
	}
	var token []byte
	for i := range kept.Pieces {
		piece, err := call("load", func() (string, error) { return keyring.Get(k.service(r.ID, r.Place), item(name, i)) })
		if errors.Is(err, keyring.ErrNotFound) {
			return Secret{}, errors.New("names tokens that are not in the keyring")
		}
		if err != nil {
			return Secret{}, err
		}
		token = append(token, piece...)
	}
	if digest(token) != kept.SHA256 {
		return Secret{}, errors.New("names other tokens than are in the keyring")
	}
	return NewSecret(string(token)), nil
}

// set writes a token, and reads it back: some keyrings report no failure.
func (k *Keyring) set(r keyringRecord, name string, secret Secret) (keptSecret, error) {
	var kept keptSecret
	if secret.Empty() {
		return kept, nil
	}
	token := secret.Reveal()
	kept.SHA256 = digest([]byte(token))
	for rest := token; rest != ""; kept.Pieces++ {
		name, piece := item(name, kept.Pieces), rest[:min(pieceSize, len(rest))]
		rest = rest[len(piece):]
		_, err := call("save", func() (struct{}, error) {
			return struct{}{}, keyring.Set(k.service(r.ID, r.Place), name, piece)
		})
		if err != nil {
			return kept, err
		}
	}
	if _, err := k.get(&r, name, kept); err != nil {
		var unusable *KeyringError
		if errors.As(err, &unusable) {
			return kept, err
		}
		return kept, &KeyringError{Op: "save", Reason: KeyringFailed, Err: err}
	}
	return kept, nil
}

// clear deletes whatever is in one place, known or not.
func (k *Keyring) clear(op, id, place string) error {
	_, err := call(op, func() (struct{}, error) { return struct{}{}, keyring.DeleteAll(k.service(id, place)) })
	return err
}

// service names a place in the keyring. The folder is part of the name, for the
// keyring is one for all folders, and the same session may be in two of them
// for two persons.
func (k *Keyring) service(id, place string) string {
	dir := k.disk.dir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	sum := sha256.Sum256([]byte(dir))
	return "kubectl-oidc_device/" + hex.EncodeToString(sum[:6]) + "/" + id + "/" + place
}

// item is the name of the i-th piece of a token.
func item(name string, i int) string {
	if i == 0 {
		return name
	}
	return name + "/" + strconv.Itoa(i+1)
}

// ready makes sure that there is a keyring that can be asked.
func (k *Keyring) ready(op string) error {
	_, err := call(op, func() (struct{}, error) {
		// A little less than call's patience: the one who waits for an unlocking
		// can tell more than call can.
		ctx, cancel := context.WithTimeout(context.Background(), keyringTimeout-200*time.Millisecond)
		defer cancel()
		return struct{}{}, keyringReady(ctx)
	})
	return err
}

// call runs one call of the keyring, for 3 s at most. The libraries below know
// no context: a call that hangs goes on hanging until the program ends.
func call[T any](op string, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		a := answer{err: errors.New("its answer was not understood")}
		defer func() {
			// go-keyring takes an answer's form for granted, and panics at
			// another; what it says then is of no use to anybody.
			_ = recover()
			answers <- a
		}()
		value, err := f()
		a = answer{value, err}
	}()
	var none T
	select {
	case a := <-answers:
		var known *KeyringError
		switch {
		case a.err == nil:
			return a.value, nil
		case errors.Is(a.err, keyring.ErrNotFound):
			return none, a.err
		case errors.As(a.err, &known):
			return none, &KeyringError{Op: op, Reason: known.Reason, Err: known.Err}
		case errors.Is(a.err, keyring.ErrUnsupportedPlatform):
			return none, &KeyringError{Op: op, Reason: KeyringAbsent, Err: a.err}
		}
		return none, &KeyringError{Op: op, Reason: keyringReason(a.err), Err: a.err}
	case <-time.After(keyringTimeout):
		return none, &KeyringError{Op: op, Reason: KeyringTimedOut}
	}
}
