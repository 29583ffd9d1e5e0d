package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

// Many writers at once, and a rotation in the midst of it: every line parses,
// and none is lost. Each writer has a lock of its own, as processes have.
func TestTrailUnderLoad(t *testing.T) {
	const writers, each = 20, 50
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	full := bytes.Repeat([]byte("{}\n"), (trailSize-20_000)/3)
	if err := os.WriteFile(path, full, 0o600); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			s := newSession(&options{issuer: "https://a", clientID: "c", cacheDir: t.TempDir(), auditLog: path, auditRequired: true}, &ui{out: io.Discard})
			for n := range each {
				e := &cache.Entry{Subject: fmt.Sprintf("%d-%d", w, n), Token: cache.NewSecret("t")}
				if err := s.audit(tokenRenewed, e, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	seen := map[string]int{}
	for _, name := range []string{path, path + ".1"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var r auditRecord
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%s: %v in %.100q", name, err, line)
			}
			seen[r.OAuth.Subject]++
		}
	}
	delete(seen, "")
	for subject, n := range seen {
		if n != 1 {
			t.Errorf("%s is there %d times", subject, n)
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d records, want %d", len(seen), writers*each)
	}
	if _, err := os.Stat(path + ".2"); err == nil {
		t.Error("it rotated more than once")
	}
}

// A trail whose lock is held by somebody who does not let go is written all the
// same.
func TestTrailIsNotInTheWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	holder := &trail{path: path, ui: &ui{out: io.Discard}}
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	start := time.Now()
	if err := holder.append([]byte("{}\n")); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "{}\n" || time.Since(start) > 5*time.Second {
		t.Errorf("got %q after %v", b, time.Since(start))
	}
}

// Each action's outcome is one that the Elastic Common Schema knows.
func TestActions(t *testing.T) {
	s := newSession(&options{issuer: "https://a", clientID: "c", cacheDir: t.TempDir()}, &ui{out: io.Discard})
	for action, want := range map[string]string{
		loginStart: "unknown start", loginApproved: "success info", loginDenied: "failure info", loginExpired: "failure info", loginFailed: "failure info",
		tokenRenewed: "success info", renewalRefused: "failure info", tokenRefused: "failure info", sessionRevoked: "success end", sessionDeleted: "success end",
	} {
		r := s.record(action, nil)
		if got := r.Event.Outcome + " " + strings.Join(r.Event.Type, " "); got != want {
			t.Errorf("%s: %s, want %s", action, got, want)
		}
	}
}
