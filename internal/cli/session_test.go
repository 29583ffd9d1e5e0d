package cli

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
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

// A certificate or a proxy in between can put any text into an error.
func TestTransportErrorsAreCleaned(t *testing.T) {
	message, _, _ := explain(&flow.TransportError{URL: "u", Err: errors.New("valid for \x1b]0;x\x07, not for y\u202e")}, nil)
	if message != "cannot reach u: valid for ]0;x, not for y" {
		t.Errorf("got %q", message)
	}
}
