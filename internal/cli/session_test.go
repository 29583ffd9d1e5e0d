package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

func TestCoolDown(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	tests := []struct {
		name     string
		failure  cache.Failure
		terminal bool // of this run
		fresh    bool
		waited   bool
		prompt   string
		want     string // "", "cool-down" or "joined"
	}{
		{name: "the first, a moment ago", failure: cache.Failure{At: ago(time.Second), Count: 1}, want: "cool-down"},
		{name: "the first, two minutes ago", failure: cache.Failure{At: ago(2 * time.Minute), Count: 1}},
		{name: "the third, two minutes ago", failure: cache.Failure{At: ago(2 * time.Minute), Count: 3}, want: "cool-down"},
		{name: "the same client does not shorten it", failure: cache.Failure{At: ago(2 * time.Minute), Count: 3, Client: "me"}, want: "cool-down"},
		{name: "half an hour at most", failure: cache.Failure{At: ago(31 * time.Minute), Count: 1000}},
		{name: "a count that makes no sense", failure: cache.Failure{At: ago(2 * time.Minute), Count: -5}},
		{name: "a person at a terminal", failure: cache.Failure{At: ago(time.Second), Count: 3}, terminal: true},
		{name: "a person was at a terminal", failure: cache.Failure{At: ago(time.Second), Count: 3, Terminal: true}},
		{name: "the same client at a terminal", failure: cache.Failure{At: ago(time.Second), Count: 1, Client: "me", Terminal: true}, terminal: true, want: "cool-down"},
		{name: "the same client at a terminal, later", failure: cache.Failure{At: ago(61 * time.Second), Count: 9, Client: "me", Terminal: true}, terminal: true},
		{name: "login", failure: cache.Failure{At: ago(time.Second), Count: 3}, fresh: true},
		{name: "--prompt=always", failure: cache.Failure{At: ago(time.Second), Count: 3}, prompt: "always"},
		{name: "a clock that was set back", failure: cache.Failure{At: ago(-30 * time.Minute), Count: 3}},
		{name: "and login", failure: cache.Failure{At: ago(-30 * time.Minute), Count: 3}, fresh: true, waited: true},
		{name: "a login that was waited for", failure: cache.Failure{At: ago(0), Count: 1, Kind: "denied", Status: 4}, waited: true, want: "joined"},
		{name: "of a kind that is not known", failure: cache.Failure{At: ago(0), Count: 1, Kind: "?", Status: 7}, waited: true, want: "joined"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(&options{issuer: "https://a", clientID: "c", cacheDir: t.TempDir(), prompt: tt.prompt}, &ui{out: io.Discard, screen: screen{terminal: tt.terminal}})
			s.started = ago(time.Second / 2)
			s.fresh, s.waited, s.client = tt.fresh, tt.waited, func() string { return "me" }
			unlock, _, err := s.lock(t.Context(), func(*cache.Entry) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			s.note(func(n *cache.Notes) { n.Failure = &tt.failure })
			var coolDown *coolDownError
			var joined *joinedError
			got := ""
			switch err := s.mayLogin(); {
			case errors.As(err, &coolDown):
				got = "cool-down"
			case errors.As(err, &joined):
				if got = "joined"; joined.err == nil || joined.status != tt.failure.Status {
					t.Errorf("joined %v, status %d", joined.err, joined.status)
				}
			case err != nil:
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestUsable(t *testing.T) {
	now := time.Now()
	entry := func(issued, expires time.Duration) *cache.Entry {
		return &cache.Entry{Token: cache.NewSecret("t"), TokenIssuedAt: now.Add(issued), TokenExpiresAt: now.Add(expires), ApprovedAt: now.Add(-time.Hour)}
	}
	tests := []struct {
		name         string
		e            *cache.Entry
		fresh, force bool
		want         bool
	}{
		{"none", nil, false, false, false},
		{"good", entry(-time.Minute, time.Hour), false, false, true},
		{"expired", entry(-time.Hour, -time.Second), false, false, false},
		{"less than 30 s left", entry(-time.Hour, 20*time.Second), false, false, false},
		{"of a minute, 20 s left", entry(-15*time.Second, 20*time.Second), false, false, true},
		{"from the future", entry(time.Hour, 2*time.Hour), false, false, false},
		{"--force-refresh", entry(-time.Minute, time.Hour), false, true, false},
		{"--force-refresh, renewed meanwhile", entry(time.Millisecond, time.Hour), false, true, true},
		{"login, renewed meanwhile by another", entry(time.Millisecond, time.Hour), true, false, false},
	}
	for _, tt := range tests {
		s := &session{options: &options{minValidity: 30 * time.Second, forceRefresh: tt.force}, started: now, fresh: tt.fresh}
		if got := s.usable(tt.e); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	approved := entry(time.Millisecond, time.Hour)
	approved.ApprovedAt = now.Add(time.Millisecond)
	if s := (&session{options: &options{}, started: now, fresh: true}); !s.usable(approved) {
		t.Error("login: a login that another process ran meanwhile was not taken")
	}
}

// A holder that was stopped, as by Ctrl-Z, keeps its lock: who waits for it
// names it in the end, and does not wait for ever.
func TestStoppedHolder(t *testing.T) {
	for name, prompt := range map[string]*cache.Prompt{
		"at a prompt":  {VerificationURI: "https://idp.example.com/device", UserCode: "ABCD-EFGH", ExpiresAt: time.Now().Add(5 * time.Minute)},
		"in a renewal": nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := newSession(&options{issuer: "https://a", clientID: "c", cacheDir: dir}, &ui{out: io.Discard})
				unlock, err := s.disk.Lock(t.Context(), s.id, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer unlock()
				if prompt != nil {
					prompt.ExpiresAt = time.Now().Add(5 * time.Minute)
				}
				s.note(func(n *cache.Notes) { n.Prompt = prompt })
				start := time.Now()
				_, _, err = s.lock(t.Context(), func(*cache.Entry) bool { return false })
				var stuck *stuckError
				if took := time.Since(start).Round(time.Second); !errors.As(err, &stuck) || stuck.pid != os.Getpid() || took != 5*time.Minute+holderGrace {
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
}

// While another process waits for a person, a token that is good for a moment
// yet is better than waiting for the same person.
func TestPendingLoginDoesNotHoldBack(t *testing.T) {
	var out bytes.Buffer
	s := newSession(&options{issuer: "https://a", clientID: "c", cacheDir: t.TempDir(), minValidity: time.Minute}, &ui{out: &out})
	entry := &cache.Entry{Key: s.key(), Token: cache.NewSecret("t"), TokenIssuedAt: time.Now().Add(-time.Hour), TokenExpiresAt: time.Now().Add(40 * time.Second)}
	s.save(entry)
	unlock, err := s.disk.Lock(t.Context(), s.id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s.note(func(n *cache.Notes) {
		n.Prompt = &cache.Prompt{VerificationURI: "https://idp.example.com/device", UserCode: "ABCD-EFGH", ExpiresAt: time.Now().Add(time.Minute)}
	})
	got, err := s.newToken(t.Context())
	if err != nil || !got.Token.Equal(entry.Token) || strings.Contains(out.String(), "ABCD-EFGH") {
		t.Errorf("%v, %v\n%s", got, err, &out)
	}
}

// Before invalid_grant is believed the cache is read once more: where there are
// no locks, somebody else may have used the refresh token a moment ago.
func TestInvalidGrantIsNotBelievedAtOnce(t *testing.T) {
	is, err := issuer.Start(issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer is.Close()
	var out bytes.Buffer
	s := newSession(&options{issuer: is.URL(), clientID: "kubectl", cacheDir: t.TempDir(), auditLog: "none"}, &ui{out: &out})
	now := time.Now()
	old := &cache.Entry{Key: s.key(), Token: cache.NewSecret("old"), RefreshToken: cache.NewSecret("used"), TokenIssuedAt: now.Add(-time.Hour), TokenExpiresAt: now.Add(-time.Minute)}
	renewed := *old
	renewed.Token, renewed.RefreshToken = cache.NewSecret("new"), cache.NewSecret("rotated")
	renewed.TokenIssuedAt, renewed.TokenExpiresAt = now, now.Add(time.Hour)
	s.save(&renewed)
	got, err := s.renew(t.Context(), old)
	if err != nil || !got.Token.Equal(renewed.Token) || is.Count("refresh") != 1 || out.Len() > 0 {
		t.Errorf("%v, %v, %d requests\n%s", got, err, is.Count("refresh"), &out)
	}
}

// A prompt out of a lock file is shown only if it could have been one of ours.
func TestPromptOfALockFileIsChecked(t *testing.T) {
	good := cache.Prompt{VerificationURI: "https://idp.example.com/device", VerificationURIComplete: "https://idp.example.com/device?user_code=A", UserCode: "A"}
	for name, change := range map[string]func(*cache.Prompt){
		"the link":          func(p *cache.Prompt) { p.VerificationURI = "file:///etc/passwd" },
		"no link":           func(p *cache.Prompt) { p.VerificationURI = "" },
		"the complete link": func(p *cache.Prompt) { p.VerificationURIComplete = "javascript:alert(1)" },
		"a scope":           func(p *cache.Prompt) { p.Scopes = []string{"a\x1b[2J"} },
		"the code":          func(p *cache.Prompt) { p.UserCode = "A\x1b[2J" },
	} {
		p := good
		if change(&p); safe(&p) {
			t.Errorf("%s: %+v is shown", name, p)
		}
	}
	if !safe(&good) {
		t.Errorf("%+v is not shown", good)
	}
}

// The administrator's policy is one that is read.
func TestSystemPolicyIsRead(t *testing.T) {
	t.Setenv("OIDC_DEVICE_POLICY", "")
	if files := policyFiles(); !slices.Equal(files, []string{systemPolicy()}) || !filepath.IsAbs(files[0]) {
		t.Errorf("%q", files)
	}
}

// A kubeconfig can name a user with no name at all.
func TestFindRef(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "config"))
	const text = `{"users": [
{"name": "", "user": {"exec": {"command": "kubectl-oidc_device", "args": ["get-token", "--oidc-issuer-url=https://a", "--oidc-client-id=none"]}}},
{"name": "u", "user": {"exec": {"command": "kubectl-oidc_device", "args": ["get-token", "--oidc-issuer-url=https://a", "--oidc-client-id=u"]}}}
], "contexts": [{"name": "c", "context": {"user": "u"}}]}`
	if err := os.WriteFile(os.Getenv("KUBECONFIG"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if ref, err := findRef("c", ""); err != nil || ref.options.clientID != "u" {
		t.Errorf("%+v, %v", ref, err)
	}
}

// A certificate or a proxy in between can put any text into an error.
func TestTransportErrorsAreCleaned(t *testing.T) {
	message, _, _ := explain(&flow.TransportError{URL: "u", Err: errors.New("valid for \x1b]0;x\x07, not for y\u202e")}, nil)
	if message != "cannot reach u: valid for ]0;x, not for y" {
		t.Errorf("got %q", message)
	}
}
