package cli_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// world is a provider and a cache for tests with several processes.
type world struct {
	*testing.T
	is  *issuer.Issuer
	dir string
}

func newWorld(t *testing.T) *world {
	is, err := issuer.Start(issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, is: is, dir: t.TempDir()}
	is.Set(func(b *issuer.Behaviour) { b.DeviceFields = map[string]any{"interval": 0.2} })
	t.Cleanup(func() {
		is.Close()
		for _, name := range []string{"stderr", "stdout"} {
			out, _ := os.ReadFile(filepath.Join(w.dir, name)) // not there: nothing was written
			for _, secret := range is.Sentinels() {
				if (name == "stderr" || strings.Contains(secret, "SENTINEL")) && bytes.Contains(out, []byte(secret)) {
					t.Errorf("a secret is on %s: %s", name, secret)
				}
			}
		}
	})
	return w
}

// process is one run of the program, with what it says.
type process struct {
	*exec.Cmd
	out, err syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (w *world) start(args ...string) *process {
	w.Helper()
	return w.startAs([]string{"kubectl-oidc_device"}, args...)
}

// startAs runs the program by a command that gets its arguments.
func (w *world) startAs(command []string, args ...string) *process {
	w.Helper()
	args = append(slices.Concat(command[1:], args), "--oidc-issuer-url="+w.is.URL(), "--oidc-client-id=kubectl", "--token-cache-dir="+filepath.Join(w.dir, "cache"))
	p := &process{Cmd: exec.Command(command[0], args...)}
	p.Env = append(os.Environ(), logVariable+"="+w.dir, "XDG_STATE_HOME="+filepath.Join(w.dir, "state"), "KUBECONFIG="+filepath.Join(w.dir, "kubeconfig"))
	p.Stdout, p.Stderr = &p.out, &p.err
	if err := p.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = p.Process.Kill() }) // it has ended, if the test went well
	return p
}

// token waits for a process's end and gives its token.
func (w *world) token(p *process) string {
	w.Helper()
	if err := p.Wait(); err != nil {
		w.Errorf("%v\n%s", err, &p.err)
		return ""
	}
	var credential struct {
		Status struct{ Token string }
	}
	if err := json.Unmarshal([]byte(p.out.String()), &credential); err != nil || credential.Status.Token == "" {
		w.Errorf("no token in %q: %v", &p.out, err)
	}
	return credential.Status.Token
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			w.Fatalf("waited in vain for: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

var codeLine = regexp.MustCompile(`(?m)^oidc-device:     ([A-Z]{4}-[A-Z]{4})$`)

// approve does what a person does who reads a process's prompt.
func (w *world) approve(p *process) {
	w.Helper()
	w.until("a code", func() bool { return codeLine.MatchString(p.err.String()) })
	if err := w.is.Approve(codeLine.FindStringSubmatch(p.err.String())[1]); err != nil {
		w.Fatal(err)
	}
}

// A hundred processes want an expired session at the same moment, and the
// provider takes a refresh token that is used twice for theft.
func TestHundredProcessesOneRenewal(t *testing.T) {
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls, b.IDTokenLifetime = 1, 2*time.Second })
	w.token(w.start("get-token"))
	time.Sleep(2 * time.Second) // the token's life
	w.is.Set(func(b *issuer.Behaviour) { b.IDTokenLifetime, b.RefreshDelay = 10*time.Minute, 500*time.Millisecond })
	var processes []*process
	for range 100 {
		processes = append(processes, w.start("get-token", "--prompt=never"))
	}
	seen := map[string]int{}
	for _, p := range processes {
		seen[w.token(p)]++
	}
	if len(seen) != 1 || w.is.Count("refresh") != 1 || w.is.Count("device") != 1 {
		t.Errorf("%d different tokens, %d renewals, %d logins; want one of each", len(seen), w.is.Count("refresh"), w.is.Count("device"))
	}
}

// Several processes want a login: one asks the provider, all show its code.
func TestOneLoginForAll(t *testing.T) {
	w := newWorld(t)
	var processes []*process
	for range 5 {
		processes = append(processes, w.start("get-token"))
	}
	for _, p := range processes {
		w.until("a prompt of each", func() bool { return codeLine.MatchString(p.err.String()) })
	}
	w.approve(processes[0])
	tokens, codes := map[string]int{}, map[string]int{}
	for _, p := range processes {
		tokens[w.token(p)]++
		codes[codeLine.FindStringSubmatch(p.err.String())[1]]++
	}
	if len(tokens) != 1 || len(codes) != 1 || w.is.Count("device") != 1 {
		t.Errorf("%d tokens, %d codes, %d logins; want one of each", len(tokens), len(codes), w.is.Count("device"))
	}
}

// Whoever may not ask a person does not wait for one either, and nobody waits
// longer for another's login than for an own one.
func TestWaitersGiveUp(t *testing.T) {
	w := newWorld(t)
	holder := w.start("get-token")
	w.until("the holder's prompt", func() bool { return strings.Contains(holder.err.String(), "lasts until") })
	for status, args := range map[int][]string{3: {"get-token", "--prompt=never"}, 5: {"get-token", "--authentication-timeout=300ms"}} {
		p := w.start(args...)
		_ = p.Wait()
		if p.ProcessState.ExitCode() != status {
			t.Errorf("%v: exit status %d, want %d\n%s", args, p.ProcessState.ExitCode(), status, &p.err)
		}
	}
	w.approve(holder)
	w.token(holder)
}

// When the holder of the lock is killed, somebody else goes on; when it is
// denied, nobody asks again.
func TestHolderEnds(t *testing.T) {
	w := newWorld(t)
	holder := w.start("get-token")
	w.until("the holder's prompt", func() bool { return strings.Contains(holder.err.String(), "/device") })
	waiter := w.start("get-token")
	w.until("the waiter's prompt", func() bool {
		return strings.Contains(waiter.err.String(), "is waiting for the approval of this same login") && strings.Contains(waiter.err.String(), "(client kubectl, scopes openid offline_access)")
	})
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	w.until("the waiter's own login", func() bool { return w.is.Count("device") == 2 })
	second := w.start("get-token")
	w.until("the second waiter's prompt", func() bool { return strings.Contains(second.err.String(), "this same login") })
	codes := w.is.PendingCodes()
	if err := w.is.Deny(codes[len(codes)-1]); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*process{waiter, second} {
		_ = p.Wait()
		if status := p.ProcessState.ExitCode(); status != 4 {
			t.Errorf("exit status %d, want 4\n%s", status, &p.err)
		}
	}
	if n := w.is.Count("device"); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals")
	}
	w := newWorld(t)
	for signal, status := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		before := w.is.Count("device")
		holder := w.start("get-token")
		w.until("the holder's prompt", func() bool {
			return w.is.Count("device") > before && strings.Contains(holder.err.String(), "lasts until")
		})
		waiter := w.start("get-token")
		w.until("the waiter's prompt", func() bool { return strings.Contains(waiter.err.String(), "this same login") })
		// The one that waits for the lock first: it must not need the holder's end.
		for _, p := range []*process{waiter, holder} {
			if err := p.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_ = p.Wait()
			if p.ProcessState.ExitCode() != status || p.out.String() != "" || time.Since(start) > 10*time.Second {
				t.Errorf("%v: exit status %d after %v, want %d at once\n%s", signal, p.ProcessState.ExitCode(), time.Since(start), status, &p.err)
			}
		}
	}
	// A login that was interrupted holds nobody back.
	p := w.start("get-token")
	w.approve(p)
	w.token(p)
}

// A signal between the provider's answer and the save must not cost the
// rotated refresh token.
func TestSignalDuringRenewal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals")
	}
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 })
	w.token(w.start("get-token"))
	w.is.Set(func(b *issuer.Behaviour) { b.RefreshDelay = 500 * time.Millisecond })
	p := w.start("get-token", "--force-refresh")
	w.until("the renewal", func() bool { return w.is.Count("refresh") == 1 })
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	if p.ProcessState.ExitCode() != 130 {
		t.Errorf("exit status %d, want 130\n%s", p.ProcessState.ExitCode(), &p.err)
	}
	// It is the rotated refresh token that renews, not the old token that serves.
	again := w.start("get-token", "--force-refresh", "--prompt=never")
	w.token(again)
	if n := w.is.Count("device"); n != 1 || strings.Contains(again.err.String(), "cannot be renewed") {
		t.Errorf("%d logins, want 1\n%s", n, &again.err)
	}
}

// The first poll after the approval brings the token: it is on stdout within
// one polling interval. How long that is by the clock, hack/e2e says.
func TestTokenSoonAfterApproval(t *testing.T) {
	w := newWorld(t)
	p := w.start("get-token")
	w.until("a poll", func() bool { return w.is.Count("poll") > 0 })
	w.approve(p)
	before := w.is.Count("poll")
	w.token(p)
	if polls := w.is.Count("poll") - before; polls > 1 {
		t.Errorf("%d polls after the approval", polls)
	}
}

// One kubectl runs the plugin again after a failure, up to five times: the same
// parent is held back, terminal or not.
func TestOneClientIsNotAskedTwice(t *testing.T) {
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) { b.DenyAfterPolls = 1 })
	t.Setenv("KUBERNETES_EXEC_INFO", `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1"}`)
	statuses := []int{}
	for range 5 {
		p := w.start("get-token")
		_ = p.Wait()
		statuses = append(statuses, p.ProcessState.ExitCode())
	}
	if statuses[0] != 4 || statuses[1] != 3 || statuses[4] != 3 || w.is.Count("device") != 1 {
		t.Errorf("exit statuses %v and %d logins, want 4 3 3 3 3 and 1", statuses, w.is.Count("device"))
	}
}

// While the provider fails, those who wait for the one that tries do not try
// one after the other: they get its answer, or the token that is still good.
func TestWaitersShareTrouble(t *testing.T) {
	for _, stillGood := range []bool{true, false} {
		w := newWorld(t)
		w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 })
		if !stillGood {
			w.is.Set(func(b *issuer.Behaviour) { b.IDTokenLifetime = time.Second })
		}
		w.token(w.start("get-token"))
		time.Sleep(time.Second) // the short token's life
		w.is.Fault("refresh", -1, func(rw http.ResponseWriter, r *http.Request) bool {
			time.Sleep(time.Second) // so that all of them wait
			return issuer.Answer(503, "text/plain", "")(rw, r)
		})
		var processes []*process
		for range 20 {
			processes = append(processes, w.start("get-token", "--force-refresh"))
		}
		for _, p := range processes {
			if stillGood {
				w.token(p)
			} else if _ = p.Wait(); p.ProcessState.ExitCode() != 6 {
				t.Errorf("exit status %d, want 6\n%s", p.ProcessState.ExitCode(), &p.err)
			}
			if !strings.Contains(p.err.String(), "HTTP status 503") {
				t.Errorf("it does not say why:\n%s", &p.err)
			}
		}
		// Three tries of one process; another may have come before or after.
		if n := w.is.Count("refresh"); n > 6 || w.is.Count("device") != 1 {
			t.Errorf("%d requests and %d logins by 20 processes", n, w.is.Count("device"))
		}
		// Whoever comes later tries for itself.
		w.is.Fault("refresh", 0, nil)
		w.token(w.start("get-token", "--force-refresh", "--prompt=never"))
	}
}

// Fifty processes log in at once, each for a session of its own, and leave two
// lines each.
func TestTrailOfFiftyProcesses(t *testing.T) {
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 })
	var processes []*process
	for n := range 50 {
		processes = append(processes, w.start("get-token", fmt.Sprintf("--oidc-extra-scope=scope-%d", n)))
	}
	tokens := map[string]bool{}
	for _, p := range processes {
		tokens[w.token(p)] = true
	}
	b, err := os.ReadFile(filepath.Join(w.dir, "state", "kubectl-oidc_device", "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	actions, hashes := map[string]int{}, map[string]bool{}
	for line := range strings.Lines(string(b)) {
		var r struct {
			Event struct{ Action string }
			OAuth struct{ Token struct{ Hash string } }
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		actions[r.Event.Action]++
		hashes[r.OAuth.Token.Hash] = true
	}
	for token := range tokens {
		if sum := sha256.Sum256([]byte(token)); !hashes[hex.EncodeToString(sum[:])] {
			t.Error("a token has no record")
		}
	}
	if actions["login-start"] != 50 || actions["login-approved"] != 50 || len(tokens) != 50 {
		t.Errorf("%v for %d tokens, want 50 of each", actions, len(tokens))
	}
	for _, secret := range w.is.Sentinels() {
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("a secret is in the trail: %s", secret)
		}
	}
}
