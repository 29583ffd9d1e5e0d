package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
)

func testKey() Key {
	return Key{Issuer: "https://idp.example.com", ClientID: "kubectl", Scopes: []string{"openid", "groups"}, ExtraParams: []string{"b=2", "a=1"}}
}

func testEntry() *Entry {
	now := time.Now().Truncate(time.Second)
	return &Entry{
		Key: testKey(), Token: NewSecret("SENTINEL-token"), RefreshToken: NewSecret("SENTINEL-refresh"),
		Subject: "1234", Name: "alice", Audience: []string{"kubectl"}, ScopesGranted: []string{"openid"},
		TokenIssuedAt: now, TokenExpiresAt: now.Add(time.Hour), ApprovedAt: now,
	}
}

// The id names files of users: this value must never change.
func TestKeyIDIsStable(t *testing.T) {
	const want = "0a5199eb4ca40d98a14b68c10e3d8fa5b11b4e8dd86bc33808628e57aa633002"
	if got := testKey().ID(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestKeyID(t *testing.T) {
	base := testKey()
	same := map[string]func(*Key){
		"scopes in another order": func(k *Key) { k.Scopes = []string{"groups", "openid"} },
		"a scope twice":           func(k *Key) { k.Scopes = []string{"groups", "openid", "groups"} },
		"params in another order": func(k *Key) { k.ExtraParams = []string{"a=1", "b=2"} },
		"empty endpoints":         func(k *Key) { k.Endpoints = map[string]string{} },
	}
	for name, change := range same {
		k := testKey()
		if change(&k); k.ID() != base.ID() {
			t.Errorf("%s: another id", name)
		}
	}
	other := map[string]func(*Key){
		"issuer":       func(k *Key) { k.Issuer += "/" },
		"client":       func(k *Key) { k.ClientID = "other" },
		"scope":        func(k *Key) { k.Scopes = nil },
		"param":        func(k *Key) { k.ExtraParams = []string{"a=1"} },
		"token kind":   func(k *Key) { k.AccessToken = true },
		"endpoint":     func(k *Key) { k.Endpoints = map[string]string{"token": "https://a"} },
		"its value":    func(k *Key) { k.Endpoints = map[string]string{"token": "https://b"} },
		"its name":     func(k *Key) { k.Endpoints = map[string]string{"jwks": "https://a"} },
		"joined scope": func(k *Key) { k.Scopes = []string{"openid groups"} },
	}
	seen := map[string]string{base.ID(): "base"}
	for name, change := range other {
		k := testKey()
		change(&k)
		if twin, ok := seen[k.ID()]; ok {
			t.Errorf("%s has the id of %s", name, twin)
		}
		seen[k.ID()] = name
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	d, e := NewDisk(dir), testEntry()
	if _, err := d.Load(e.Key.ID()); !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	if err := d.Save(e); err != nil {
		t.Fatal(err)
	}
	got, err := d.Load(e.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	if !got.Token.Equal(e.Token) || !got.RefreshToken.Equal(e.RefreshToken) || !got.TokenExpiresAt.Equal(e.TokenExpiresAt) || got.Name != "alice" || !got.RenewedAt.IsZero() {
		t.Errorf("another entry came back: %v", got)
	}
	ids, err := d.List()
	if err != nil || len(ids) != 1 || ids[0] != e.Key.ID() {
		t.Errorf("List: %v, %v", ids, err)
	}
	names, _ := os.ReadDir(dir)
	if len(names) != 1 {
		t.Errorf("%d files in the folder, want the session alone", len(names))
	}
	if err := d.Delete(e.Key.ID()); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(e.Key.ID()); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no mode bits")
	}
	dir := filepath.Join(t.TempDir(), "cache")
	d, e := NewDisk(dir), testEntry()
	path := d.Path(e.Key.ID())
	if err := d.Save(e); err != nil {
		t.Fatal(err)
	}
	mustMode := func(path string, want os.FileMode) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	mustMode(dir, 0o700)
	mustMode(path, 0o600)
	// The mode of a file that is replaced must not live on.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(e); err != nil {
		t.Fatal(err)
	}
	mustMode(path, 0o600)
}

func TestUntrusted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no mode bits")
	}
	tests := []struct {
		name   string
		spoil  func(t *testing.T, dir, path string)
		reason string
	}{
		{"readable by the group", func(t *testing.T, _, path string) { chmod(t, path, 0o640) }, "open to others"},
		{"readable by all", func(t *testing.T, _, path string) { chmod(t, path, 0o604) }, "open to others"},
		{"a link", func(t *testing.T, _, path string) {
			if err := os.Rename(path, path+".moved"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path+".moved", path); err != nil {
				t.Fatal(err)
			}
		}, "symbolic link"},
		{"a folder", func(t *testing.T, _, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		{"a pipe", func(t *testing.T, _, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mkfifo", "-m", "600", path).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}, "not a regular file"},
		{"in a folder that others write", func(t *testing.T, dir, _ string) { chmod(t, dir, 0o702) }, "written by others"},
		{"in a folder that the group writes", func(t *testing.T, dir, _ string) { chmod(t, dir, 0o770) }, "written by others"},
		{"in a folder of another user", func(t *testing.T, dir, _ string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a folder away")
			}
			if err := os.Chown(dir, 12345, -1); err != nil {
				t.Fatal(err)
			}
		}, "another user"},
		{"of another user", func(t *testing.T, _, path string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Fatal(err)
			}
		}, "another user"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "it's here")
			d, e := NewDisk(dir), testEntry()
			if err := d.Save(e); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, dir, d.Path(e.Key.ID()))
			loaded := make(chan error, 1)
			go func() { _, err := d.Load(e.Key.ID()); loaded <- err }()
			var err error
			select {
			case err = <-loaded:
			case <-time.After(20 * time.Second):
				t.Fatal("it hangs")
			}
			var untrusted *UntrustedError
			if !errors.As(err, &untrusted) || !strings.Contains(untrusted.Reason, tt.reason) {
				t.Fatalf("got %v, want an UntrustedError: %s", err, tt.reason)
			}
			if !strings.Contains(untrusted.Mend, `'\''`) {
				t.Errorf("%q is not safe to paste", untrusted.Mend)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestCorrupt(t *testing.T) {
	d, e := NewDisk(t.TempDir()), testEntry()
	id := e.Key.ID()
	whole, err := encode(e)
	if err != nil {
		t.Fatal(err)
	}
	other := testEntry()
	other.Key.ClientID = "other"
	foreign, err := encode(other)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]byte{
		"empty":             {},
		"torn":              whole[:len(whole)/2],
		"zeros":             make([]byte, len(whole)),
		"another version":   bytes.Replace(whole, []byte(`"version":1`), []byte(`"version":9`), 1),
		"changed":           bytes.Replace(whole, []byte("SENTINEL-token"), []byte("SENTINEL-tokem"), 1),
		"another session's": foreign,
		"too large":         bytes.Repeat([]byte(" "), maxFile+1),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(d.Path(id), content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := d.Load(id)
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("got %v, want a CorruptError", err)
			}
			if strings.Contains(err.Error(), "SENTINEL") {
				t.Errorf("the error quotes the file: %v", err)
			}
			aside, err := d.SetAside(id)
			if err != nil {
				t.Fatal(err)
			}
			if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("%s does not hold what was set aside: %v", aside, err)
			}
			if _, err := d.Load(id); !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v, want ErrNotFound", err)
			}
		})
	}
}

func TestDocuments(t *testing.T) {
	d := NewDisk(t.TempDir())
	if b, _ := d.LoadDocument("x"); b != nil {
		t.Errorf("got %q from an empty folder", b)
	}
	now := time.Now()
	if err := d.SaveDocument("x", []byte(`{"a":1}`), now); err != nil {
		t.Fatal(err)
	}
	b, at := d.LoadDocument("x")
	if string(b) != `{"a":1}` || !at.Equal(now) {
		t.Errorf("got %q, %v", b, at)
	}
	if b, _ := d.LoadDocument("y"); b != nil {
		t.Errorf("got %q under another name", b)
	}
	if err := os.Rename(filepath.Join(d.dir, documentFile("x")), filepath.Join(d.dir, documentFile("y"))); err != nil {
		t.Fatal(err)
	}
	if b, _ := d.LoadDocument("y"); b != nil {
		t.Errorf("got %q, which is of another name", b)
	}
	if ids, _ := d.List(); len(ids) != 0 {
		t.Errorf("a document is listed as a session: %v", ids)
	}
}

func TestEntryDoesNotPrint(t *testing.T) {
	e := testEntry()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "e", e)
	marshalled, err := json.Marshal(e)
	if err == nil {
		t.Error("it was marshalled, without its tokens and without a word")
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x %v", e, e, e, e, e, e, []*Entry{e}) + log.String() + string(marshalled)
	if strings.Contains(all, "SENTINEL") || strings.Contains(all, fmt.Sprintf("%x", "SENTINEL")) {
		t.Errorf("a token was printed: %s", all)
	}
}

func TestLockExcludes(t *testing.T) {
	d, id := NewDisk(t.TempDir()), testKey().ID()
	var wg sync.WaitGroup
	var inside, had atomic.Int32
	for range 8 {
		wg.Go(func() {
			unlock, err := d.Lock(t.Context(), id, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if n := inside.Add(1); n != 1 {
				t.Errorf("%d have the lock at once", n)
			}
			time.Sleep(2 * time.Millisecond)
			inside.Add(-1)
			had.Add(1)
		})
	}
	wg.Wait()
	if had.Load() != 8 {
		t.Errorf("%d of 8 had the lock", had.Load())
	}
}

func TestLockWaitsAndSaysForWhom(t *testing.T) {
	d, id := NewDisk(t.TempDir()), testKey().ID()
	unlock, err := d.Lock(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	prompt := &Prompt{VerificationURI: "https://idp.example.com/device", UserCode: "ABCD-EFGH", ExpiresAt: time.Now().Add(time.Minute)}
	if err := d.Annotate(id, func(n *Notes) { n.Prompt = prompt }); err != nil {
		t.Fatal(err)
	}

	enough := errors.New("enough")
	_, err = d.Lock(t.Context(), id, func(n Notes) error {
		if n.Holder.PID != os.Getpid() || n.Prompt == nil || n.Prompt.UserCode != "ABCD-EFGH" {
			t.Errorf("waits for %+v", n)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v, want the error of waiting", err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = d.Lock(ctx, id, func(Notes) error { cancel(enough); return nil })
	if !errors.Is(err, enough) {
		t.Errorf("got %v, want the cause of the interruption", err)
	}
}

func TestNotesOutliveTheLock(t *testing.T) {
	d, id := NewDisk(t.TempDir()), testKey().ID()
	for count := range 3 {
		unlock, err := d.Lock(t.Context(), id, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := d.Notes(id)
		if n.Prompt != nil {
			t.Error("the prompt of an earlier holder is still shown")
		}
		if got := n.Failure; count > 0 && (got == nil || got.Count != count) {
			t.Errorf("failure: %+v, want count %d", got, count)
		}
		if err := d.Annotate(id, func(n *Notes) {
			n.Failure = &Failure{Kind: "denied", Count: count + 1}
			n.Prompt = &Prompt{UserCode: strings.Repeat("X", 10*(3-count))}
		}); err != nil {
			t.Fatal(err)
		}
		unlock()
	}
}

func TestLockRefusesALink(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege on Windows")
	}
	dir := t.TempDir()
	d, id := NewDisk(dir), testKey().ID()
	target := filepath.Join(dir, "precious")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, d.lockPath(id)); err != nil {
		t.Fatal(err)
	}
	if unlock, err := d.Lock(t.Context(), id, nil); err == nil {
		unlock()
		t.Error("a linked lock file was used")
	}
	if b, _ := os.ReadFile(target); string(b) != "precious" {
		t.Errorf("the link was followed: %q", b)
	}
}

// A file that is read belongs to its session, holds a token that does not
// print, and says the same when it is written again; one that is not is refused
// in words that hold nothing of it. The seeds are files in testdata/fuzz.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		decodes(t, b)
		// No fuzzer finds a checksum: here is the rest of decode behind a good one.
		if json.Valid(b) {
			sum := sha256.Sum256(bytes.TrimSpace(b))
			decodes(t, fmt.Appendf(nil, `{"version":1,"sha256":"%x","session":%s}`, sum, b))
		}
	})
}

// What a killed process left half written is swept by a later save; whatever
// else lies in the folder is not.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("a", 64)
	old := []string{"." + id + ".json123", ".document-" + id + ".json9"}
	kept := []string{
		"." + id + ".jsonc", "." + id + ".json", ".bashrc", "x" + id + ".json1", "." + id[1:] + ".json1",
		"." + id + ".json77", // of this moment
		id + ".corrupt-20260101T000000.000",
	}
	for _, name := range append(old, kept...) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "77") {
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(-2*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := NewDisk(dir).Save(testEntry()); err != nil {
		t.Fatal(err)
	}
	for _, name := range old {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range kept {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHandOut(t *testing.T) {
	d := NewDisk(filepath.Join(t.TempDir(), "cache"))
	id := testKey().ID()
	first, second := time.Now().Add(-time.Minute), time.Now()
	for range 2 {
		if d.HandOut(id, "1@1", first, time.Minute) {
			t.Error("without a lock file there is nothing to know")
		}
	}
	if _, err := os.Stat(d.lockPath(id)); err == nil {
		t.Error("a lock file was made")
	}
	unlock, err := d.Lock(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	for i, step := range []struct {
		client string
		issued time.Time
		often  time.Duration
		want   bool
	}{
		{"1@1", first, time.Minute, false},
		{"2@1", first, time.Minute, false}, // another client's first
		{"1@1", first, time.Minute, true},
		{"1@1", first, time.Minute, false}, // not so soon again
		{"1@1", first, 0, true},
		{"1@1", second, time.Minute, false}, // the renewed one
		{"1@1", second, time.Minute, false}, // refused too, but not so soon
		{"1@1", second, 0, true},
		{"2@1", first, time.Minute, true},
		{"1@2", second, time.Minute, false}, // the pid came back
	} {
		if got := d.HandOut(id, step.client, step.issued, step.often); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	// The notes are whole, before and after.
	if n := d.Notes(id); n.Holder.PID != os.Getpid() {
		t.Errorf("the notes are %+v", n)
	}
	if err := d.Annotate(id, func(n *Notes) { n.Prompt = &Prompt{UserCode: strings.Repeat("x", 100)} }); err != nil || !d.HandOut(id, "1@2", second, 0) {
		t.Errorf("notes and places get in each other's way: %v", err)
	}
}

func decodes(t *testing.T, b []byte) {
	t.Helper()
	e, err := decode(b, testKey().ID())
	var tokens record
	var env envelope
	if json.Unmarshal(b, &env) == nil {
		_ = json.Unmarshal(env.Session, &tokens) // one that cannot be read has none
	}
	secrets := []string{tokens.Token, tokens.RefreshToken}
	shows := func(printed string) bool {
		return slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(s, "SENTINEL") && strings.Contains(printed, s) })
	}
	if err != nil {
		if e != nil || shows(err.Error()) || strings.ContainsFunc(err.Error(), unicode.IsControl) || len(err.Error()) > 300 {
			t.Errorf("got %v, and the error %q", e, err)
		}
		return
	}
	if tokens.ID != testKey().ID() || e.Token.Empty() && e.RefreshToken.Empty() || e.Token.Reveal() != tokens.Token || e.RefreshToken.Reveal() != tokens.RefreshToken {
		t.Errorf("%q became %v", b, e)
	}
	if printed := fmt.Sprintf("%v %+v %#v %q", e, e, e, e); shows(printed) && !shows(e.Key.Issuer+e.Key.ClientID) {
		t.Errorf("it shows its token: %s", printed)
	}
	again, err := encode(e)
	if err != nil {
		t.Fatalf("decoded, but does not encode: %v", err)
	}
	e2, err := decode(again, testKey().ID())
	if err != nil {
		t.Fatalf("encoded, but does not decode: %v", err)
	}
	third, err := encode(e2)
	if err != nil || !bytes.Equal(again, third) {
		t.Errorf("written again it says\n%s and not\n%s, %v", third, again, err)
	}
}
