// Package cache keeps the tokens of logins between two runs of a program: one
// session a file, written atomically with mode 0600, in a folder of the user's
// own, with one lock a session. The tokens themselves are in that file (Disk) or
// in the system's keyring (Keyring).
//
// A session is found by its Key, which holds all that makes one login different
// from another:
//
//	store := cache.NewDisk(cache.DefaultDir())
//	key := cache.Key{Issuer: "https://idp.example.com", ClientID: "kubectl"}
//	entry, err := store.Load(key.ID())            // takes no lock
//	…
//	unlock, err := store.Lock(ctx, key.ID(), nil) // before renewing it
//	defer unlock()
//	entry, err = store.Load(key.ID())             // somebody else may have
//	…
//	err = store.Save(entry)
//
// What is not ours is not trusted: a file or folder of another owner, open to
// others, or behind a symbolic link gives an *UntrustedError.
package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/adrg/xdg"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret"
)

// ErrNotFound says that there is no such session.
var ErrNotFound = errors.New("no such session in the cache")

// UntrustedError refuses a file or folder that somebody else could have
// written or could read. Nothing was read from it.
type UntrustedError struct {
	Path   string
	Reason string // "is a symbolic link"
	Mend   string // the command that mends it
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("%s %s, so it is not trusted", e.Path, e.Reason)
}

// CorruptError says that a file of ours does not parse, or that the tokens that
// it names are gone. SetAside moves it away.
type CorruptError struct {
	Path string
	Err  error // "does not parse: …"; holds nothing of the file's content
}

func (e *CorruptError) Error() string { return fmt.Sprintf("%s %v", e.Path, e.Err) }
func (e *CorruptError) Unwrap() error { return e.Err }

// Storage keeps sessions. Implementations: Disk, Keyring and None.
//
// A session belongs in one storage. Whoever saves it in one calls Delete of the
// other after that, each time: the Delete after an earlier Save may have failed.
type Storage interface {
	// Load gives ErrNotFound for a session that is not there, *UntrustedError
	// and *CorruptError for one that cannot be used, and from Keyring a
	// *KeyringError.
	Load(id string) (*Entry, error)
	// Save replaces the whole session or leaves the old one as it was.
	Save(*Entry) error
	// Delete forgets the session; one that is not there is no error.
	Delete(id string) error
	// SetAside moves the file of a *CorruptError out of the way, and says where
	// to.
	SetAside(id string) (string, error)
}

// Move takes a session to another storage: it is saved there, then deleted
// here. The caller holds its lock. ErrNotFound means that it is not here.
func Move(id string, from, to Storage) error {
	e, err := from.Load(id)
	if err != nil {
		return err
	}
	if err := to.Save(e); err != nil {
		return err
	}
	return from.Delete(id)
}

// None is the storage that keeps nothing.
type None struct{}

func (None) Load(string) (*Entry, error)     { return nil, ErrNotFound }
func (None) Save(*Entry) error               { return nil }
func (None) Delete(string) error             { return nil }
func (None) SetAside(string) (string, error) { return "", ErrNotFound }

// Key is what makes one session different from another. The order of Scopes
// and ExtraParams does not matter. Secrets and certificates are not part of
// it: they may be changed without a new login.
type Key struct {
	Issuer      string   `json:"issuer"`
	ClientID    string   `json:"client_id"`
	Scopes      []string `json:"scopes,omitempty"`
	ExtraParams []string `json:"extra_params,omitempty"` // "name=value"
	// AccessToken is true if the session hands out the access token, false if
	// it is the ID token.
	AccessToken bool `json:"access_token,omitempty"`
	// Endpoints that were given by hand, in place of discovery: name to URL.
	Endpoints map[string]string `json:"endpoints,omitempty"`
}

// keyVersion changes only when the meaning of a key does. A field added to Key
// must leave the ids of keys without it as they are: canonical leaves empty
// values out.
const keyVersion = 1

// ID is the session's name in every storage: the SHA-256, in hexadecimal, of a
// canonical JSON of the key.
func (k Key) ID() string {
	canonical := map[string]any{"version": keyVersion, "issuer": k.Issuer, "client_id": k.ClientID}
	if len(k.Scopes) > 0 {
		canonical["scopes"] = sortedSet(k.Scopes)
	}
	if len(k.ExtraParams) > 0 {
		canonical["extra_params"] = sortedSet(k.ExtraParams)
	}
	if k.AccessToken {
		canonical["token_kind"] = "access_token"
	}
	if len(k.Endpoints) > 0 {
		canonical["endpoints"] = k.Endpoints
	}
	// encoding/json sorts the keys of maps.
	b, err := json.Marshal(canonical)
	if err != nil {
		panic(err) // strings, maps of strings and a number always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func sortedSet(in []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(in)))
}

// Secret holds a token, and cannot be printed, logged, marshalled or compared
// by accident; see its methods.
type Secret = secret.String

// NewSecret makes a Secret of a text.
func NewSecret(s string) Secret { return secret.New(s) }

// Entry is one session. It prints without its tokens.
type Entry struct {
	Key Key

	// Token is what Kubernetes gets; RefreshToken may be empty.
	Token, RefreshToken Secret

	Subject  string
	Name     string // for people: preferred_username, email or name
	Audience []string
	// ScopesRequested are those that the login asked for, which may be more
	// than the Key says; ScopesGranted is nil if the provider did not say.
	ScopesRequested, ScopesGranted []string
	// ACR and AMR say how the person was authenticated (OpenID Connect Core
	// section 2); empty where the token does not say.
	ACR string
	AMR []string

	TokenIssuedAt  time.Time
	TokenExpiresAt time.Time
	ApprovedAt     time.Time // when the person approved the login
	RenewedAt      time.Time // zero if never
	// RefreshExpiresAt is when the refresh token ends; zero if nobody said.
	RefreshExpiresAt time.Time

	Reach Reach
}

// Reach is what a program needs, beside the Key, to end a session at its
// provider when nothing but the record is left of it. It holds no secret.
type Reach struct {
	Revocation       string `json:"revocation_endpoint,omitempty"` // given by hand, in place of discovery
	CAFile           string `json:"certificate_authority,omitempty"`
	CAData           string `json:"certificate_authority_data,omitempty"` // base64
	ClientSecretFile string `json:"client_secret_file,omitempty"`
}

// Format says which session it is. The tokens could not be printed anyway.
func (e *Entry) Format(f fmt.State, _ rune) {
	if e == nil {
		fmt.Fprint(f, "no session")
		return
	}
	fmt.Fprintf(f, "session %.12s of %s at %s (tokens not shown)", e.Key.ID(), e.Key.ClientID, e.Key.Issuer)
}

// LogValue keeps the tokens out of log/slog.
func (e *Entry) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(e)) }

// DefaultDir is $XDG_CACHE_HOME/kubectl-oidc_device, as github.com/adrg/xdg
// finds it on each system.
func DefaultDir() string { return filepath.Join(xdg.CacheHome, "kubectl-oidc_device") }
