package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// about is what can be read of an Entry: all but its tokens.
type about struct {
	ID               string    `json:"id"`
	Key              Key       `json:"key"`
	Subject          string    `json:"subject,omitempty"`
	Name             string    `json:"name,omitempty"`
	Audience         []string  `json:"audience,omitempty"`
	ScopesRequested  []string  `json:"scopes_requested,omitempty"`
	ScopesGranted    []string  `json:"scopes_granted,omitempty"`
	ACR              string    `json:"acr,omitempty"`
	AMR              []string  `json:"amr,omitempty"`
	TokenIssuedAt    time.Time `json:"token_issued_at"`
	TokenExpiresAt   time.Time `json:"token_expires_at"`
	ApprovedAt       time.Time `json:"approved_at"`
	RenewedAt        time.Time `json:"renewed_at,omitzero"`
	RefreshExpiresAt time.Time `json:"refresh_expires_at,omitzero"`
	Reach            Reach     `json:"reach,omitzero"`
}

func describe(e *Entry) about {
	return about{
		ID: e.Key.ID(), Key: e.Key,
		Subject: e.Subject, Name: e.Name, Audience: e.Audience, ScopesRequested: e.ScopesRequested, ScopesGranted: e.ScopesGranted, ACR: e.ACR, AMR: e.AMR,
		TokenIssuedAt: e.TokenIssuedAt.UTC(), TokenExpiresAt: e.TokenExpiresAt.UTC(),
		ApprovedAt: e.ApprovedAt.UTC(), RenewedAt: e.RenewedAt.UTC(), RefreshExpiresAt: e.RefreshExpiresAt.UTC(),
		Reach: e.Reach,
	}
}

func (a about) entry() *Entry {
	return &Entry{
		Key:     a.Key,
		Subject: a.Subject, Name: a.Name, Audience: a.Audience, ScopesRequested: a.ScopesRequested, ScopesGranted: a.ScopesGranted, ACR: a.ACR, AMR: a.AMR,
		TokenIssuedAt: a.TokenIssuedAt, TokenExpiresAt: a.TokenExpiresAt,
		ApprovedAt: a.ApprovedAt, RenewedAt: a.RenewedAt, RefreshExpiresAt: a.RefreshExpiresAt,
		Reach: a.Reach,
	}
}

// belongs makes sure that it is of this session, and that it can be written
// again.
func (a about) belongs(id string) error {
	if a.ID != id || a.Key.ID() != id {
		return errors.New("it belongs to another session")
	}
	for _, at := range []time.Time{a.TokenIssuedAt, a.TokenExpiresAt, a.ApprovedAt, a.RenewedAt, a.RefreshExpiresAt} {
		if year := at.UTC().Year(); year < 0 || year > 9999 {
			return errors.New("it has a time that RFC 3339 does not know")
		}
	}
	return nil
}

// record is an Entry on disk. It is the one type of this package that
// marshals tokens, and it does not leave this file.
type record struct {
	about
	Token        string `json:"token"`
	RefreshToken string `json:"refresh_token,omitempty"`
}

func encode(e *Entry) ([]byte, error) {
	return seal(record{about: describe(e), Token: e.Token.Reveal(), RefreshToken: e.RefreshToken.Reveal()})
}

// decode reads what encode wrote.
func decode(b []byte, id string) (*Entry, error) {
	var r record
	if err := unseal(b, &r); err != nil {
		return nil, err
	}
	// A file copied over another session's must not lend it its tokens.
	if err := r.belongs(id); err != nil {
		return nil, err
	}
	if r.Token == "" && r.RefreshToken == "" {
		return nil, errors.New("it holds no token")
	}
	e := r.entry()
	e.Token, e.RefreshToken = NewSecret(r.Token), NewSecret(r.RefreshToken)
	return e, nil
}

// envelope is the file. The sum tells a file that was torn, or mended by hand,
// from one that was written.
type envelope struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"` // of session, as it stands in the file
	Session json.RawMessage `json:"session"`
}

const recordVersion = 1

func seal(session any) ([]byte, error) {
	inner, err := json.Marshal(session)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(envelope{Version: recordVersion, SHA256: digest(inner), Session: inner})
	return append(b, '\n'), err
}

// unseal reads what seal wrote. Its errors hold nothing of b: json's own about
// syntax quote a character at most, escaped; those about a value that does not
// suit, such as a time, quote it whole.
func unseal(b []byte, session any) error {
	var env envelope
	if err := plainly(json.Unmarshal(b, &env)); err != nil {
		return err
	}
	if env.Version != recordVersion {
		return fmt.Errorf("version %d, not %d", env.Version, recordVersion)
	}
	if env.SHA256 != digest(bytes.TrimSpace(env.Session)) {
		return errors.New("its checksum does not match")
	}
	return plainly(json.Unmarshal(env.Session, session))
}

func plainly(err error) error {
	var syntax *json.SyntaxError
	if err == nil || errors.As(err, &syntax) {
		return err
	}
	return errors.New("a value in it is of the wrong form")
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
