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

// record is an Entry on disk. It is the one type of this package that
// marshals tokens, and it does not leave this file.
type record struct {
	ID               string    `json:"id"`
	Key              Key       `json:"key"`
	Token            string    `json:"token"`
	RefreshToken     string    `json:"refresh_token,omitempty"`
	Subject          string    `json:"subject,omitempty"`
	Name             string    `json:"name,omitempty"`
	Audience         []string  `json:"audience,omitempty"`
	ScopesRequested  []string  `json:"scopes_requested,omitempty"`
	ScopesGranted    []string  `json:"scopes_granted,omitempty"`
	TokenIssuedAt    time.Time `json:"token_issued_at"`
	TokenExpiresAt   time.Time `json:"token_expires_at"`
	ApprovedAt       time.Time `json:"approved_at"`
	RenewedAt        time.Time `json:"renewed_at,omitzero"`
	RefreshExpiresAt time.Time `json:"refresh_expires_at,omitzero"`
}

// envelope is the file. The sum tells a file that was torn, or mended by hand,
// from one that was written.
type envelope struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"` // of session, as it stands in the file
	Session json.RawMessage `json:"session"`
}

const recordVersion = 1

func encode(e *Entry) ([]byte, error) {
	session, err := json.Marshal(record{
		ID: e.Key.ID(), Key: e.Key, Token: e.Token.Reveal(), RefreshToken: e.RefreshToken.Reveal(),
		Subject: e.Subject, Name: e.Name, Audience: e.Audience, ScopesRequested: e.ScopesRequested, ScopesGranted: e.ScopesGranted,
		TokenIssuedAt: e.TokenIssuedAt.UTC(), TokenExpiresAt: e.TokenExpiresAt.UTC(),
		ApprovedAt: e.ApprovedAt.UTC(), RenewedAt: e.RenewedAt.UTC(), RefreshExpiresAt: e.RefreshExpiresAt.UTC(),
	})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(session)
	b, err := json.Marshal(envelope{Version: recordVersion, SHA256: hex.EncodeToString(sum[:]), Session: session})
	return append(b, '\n'), err
}

// decode reads what encode wrote. Its errors hold nothing of b: json's own
// quote a character at most.
func decode(b []byte, id string) (*Entry, error) {
	var env envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return nil, err
	}
	if env.Version != recordVersion {
		return nil, fmt.Errorf("version %d, not %d", env.Version, recordVersion)
	}
	sum := sha256.Sum256(bytes.TrimSpace(env.Session))
	if env.SHA256 != hex.EncodeToString(sum[:]) {
		return nil, errors.New("its checksum does not match")
	}
	var r record
	if err := json.Unmarshal(env.Session, &r); err != nil {
		return nil, err
	}
	// A file copied over another session's must not lend it its tokens.
	if r.ID != id {
		return nil, errors.New("it belongs to another session")
	}
	if r.Token == "" && r.RefreshToken == "" {
		return nil, errors.New("it holds no token")
	}
	return &Entry{
		Key: r.Key, Token: NewSecret(r.Token), RefreshToken: NewSecret(r.RefreshToken),
		Subject: r.Subject, Name: r.Name, Audience: r.Audience, ScopesRequested: r.ScopesRequested, ScopesGranted: r.ScopesGranted,
		TokenIssuedAt: r.TokenIssuedAt, TokenExpiresAt: r.TokenExpiresAt,
		ApprovedAt: r.ApprovedAt, RenewedAt: r.RenewedAt, RefreshExpiresAt: r.RefreshExpiresAt,
	}, nil
}
