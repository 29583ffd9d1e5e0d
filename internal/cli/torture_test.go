package cli_test

import (
	"fmt"
	"math/rand/v2"
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

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// realProgram builds the program with its own main, which the copy for the
// scripts does not have, and makes start take it for the rest of the test.
func realProgram(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(path)+string(os.PathListSeparator)+os.Getenv("PATH"))
	return path
}

var built = sync.OnceValues(func() (string, error) {
	// The copy's folder goes away when the last test has ended.
	copied, err := exec.LookPath("kubectl-oidc_device")
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(copied), "real", filepath.Base(copied))
	return path, build(path, "../..")
})

func build(path, source string) error {
	// go test takes its last result again where no file has changed that the
	// test itself has looked at; those that a compiler reads do not count.
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	if out, err := exec.Command("go", "build", "-o", path, source).CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", source, err, out)
	}
	return nil
}

// Fifty processes find an empty cache. All of them wait before the provider
// approves: none is served out of the cache by luck.
func TestFiftyProcessesOneLogin(t *testing.T) {
	realProgram(t)
	w := newWorld(t)
	var processes []*process
	for range 50 {
		processes = append(processes, w.start("get-token"))
	}
	for _, p := range processes {
		w.until("a prompt of each", func() bool { return codeLine.MatchString(p.err.String()) })
	}
	w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 })
	tokens, codes := map[string]int{}, map[string]int{}
	for _, p := range processes {
		tokens[w.token(p)]++
		codes[codeLine.FindStringSubmatch(p.err.String())[1]]++
	}
	if len(tokens) != 1 || len(codes) != 1 || w.is.Count("device") != 1 || w.is.Count("refresh") != 0 {
		t.Errorf("%d tokens, %d codes, %d logins, %d renewals; want one of each, and no renewal",
			len(tokens), len(codes), w.is.Count("device"), w.is.Count("refresh"))
	}
}

// A renewal that is killed anywhere leaves a cache that can be read and a token
// that is still good. It costs the session only if it is killed between the
// provider's answer and the save, and then one prompt.
func TestKillNine(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	realProgram(t)
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) {
		b.ApproveAfterPolls, b.DeviceFields = 1, map[string]any{"interval": 0.05}
		b.RefreshDelay = 20 * time.Millisecond // to have something to kill
	})
	w.token(w.start("get-token"))
	folder := filepath.Join(w.dir, "cache")
	disk := cache.NewDisk(folder)
	ids, err := disk.List()
	if err != nil || len(ids) != 1 {
		t.Fatalf("sessions %v, %v; want one", ids, err)
	}
	id := ids[0]

	var times []time.Duration
	for range 9 {
		start := time.Now()
		w.token(w.start("get-token", "--force-refresh", "--prompt=never"))
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	median := times[len(times)/2]

	// intact gives the session, and an error for each file that is not whole.
	intact := func() *cache.Entry {
		t.Helper()
		ids, err := disk.List()
		if err != nil || len(ids) != 1 {
			t.Fatalf("sessions %v, %v; want one", ids, err)
		}
		e, err := disk.Load(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names(t, folder) {
			if strings.Contains(name, ".corrupt-") {
				t.Fatalf("%s was set aside", name)
			}
		}
		return e
	}
	killed, asked, lost := 0, 0, 0
	for range rounds {
		before, renewals := intact(), w.is.Count("refresh")
		p := w.start("get-token", "--force-refresh", "--prompt=never")
		time.Sleep(rand.N(median * 6 / 5))
		_ = p.Process.Kill() // it may have ended
		switch status := w.ended(p); {
		case status == 0:
		case status > 0 && runtime.GOOS != "windows":
			t.Fatalf("a renewal that was not killed ended with %d\n%s", status, &p.err)
		default:
			killed++
		}
		saved := !intact().RefreshToken.Equal(before.RefreshToken)

		logins := w.is.Count("device")
		w.token(w.start("get-token", "--prompt=never"))
		w.token(w.start("get-token", "--force-refresh"))
		intact()
		// The last call has sent one.
		reached := w.is.Count("refresh")-1 > renewals
		if reached && !saved {
			asked++
		}
		logins = w.is.Count("device") - logins
		if logins > 0 {
			lost++
		}
		if logins > 1 || logins > 0 && (saved || !reached) {
			t.Errorf("%d logins after a kill; the provider was asked: %v, its answer was saved: %v", logins, reached, saved)
		}
	}
	t.Logf("a renewal takes %v; of %d rounds, %d were killed before their end, %d of these between request and save; %d sessions were lost",
		median.Round(100*time.Microsecond), rounds, killed, asked, lost)
	if killed == 0 || asked == 0 {
		t.Errorf("%d rounds were killed, %d of them during a renewal: nothing was tried", killed, asked)
	}

	// What the killed left behind is swept by a later save. One is made up,
	// lest there be none by luck.
	leftover := filepath.Join(folder, "."+id+".json0000000000")
	if err := os.WriteFile(leftover, []byte(`{"version":1,"sha`), 0o600); err != nil {
		t.Fatal(err)
	}
	old, left := time.Now().Add(-2*time.Minute), 0
	for _, name := range names(t, folder) {
		if strings.HasPrefix(name, ".") {
			left++
			if err := os.Chtimes(filepath.Join(folder, name), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d temporary files were left by the killed", left-1)
	w.token(w.start("get-token", "--force-refresh"))
	for _, name := range names(t, folder) {
		if strings.HasPrefix(name, ".") {
			t.Errorf("%s is still there", regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(name, "<id>"))
		}
	}
	intact()
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// renewing gives a process that waits for a provider that takes its time to
// renew.
func (w *world) renewing() *process {
	w.Helper()
	w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls, b.RefreshDelay = 1, 20*time.Second })
	w.token(w.start("get-token"))
	before := w.is.Count("refresh")
	p := w.start("get-token", "--force-refresh", "--prompt=never")
	w.until("the renewal", func() bool { return w.is.Count("refresh") > before })
	return p
}

// ended waits for a process's end and gives its exit status: -1 if a signal
// ended it, such as the one for a process that never ends by itself.
func (w *world) ended(p *process) int {
	late := time.AfterFunc(30*time.Second, func() { _ = p.Process.Kill() })
	defer late.Stop()
	_ = p.Wait() // what it was is in ProcessState
	return p.ProcessState.ExitCode()
}

func (w *world) signal(p *process, s os.Signal) time.Time {
	w.Helper()
	at := time.Now()
	if err := p.Process.Signal(s); err != nil {
		w.Fatal(err)
	}
	return at
}

// A signal is held back for a renewal, but for a moment only: a provider that
// hangs must not keep a person from leaving.
func TestSignalHeldAtMostTwoSeconds(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals")
	}
	w := newWorld(t)
	p := w.renewing()
	at := w.signal(p, syscall.SIGINT)
	status := w.ended(p)
	if took := time.Since(at); status != 130 || took < 1500*time.Millisecond || took > 5*time.Second || p.out.String() != "" {
		t.Errorf("exit status %d %v after the signal, want 130 after about 2 s\n%s", status, took, &p.err)
	}
}

// main.go has a signal handler of its own, which the copy for the scripts does
// not have.
func TestRealMainSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals")
	}
	realProgram(t)
	w := newWorld(t)
	for _, test := range []struct {
		signal syscall.Signal
		status int
	}{{syscall.SIGHUP, 129}, {syscall.SIGINT, 130}, {syscall.SIGTERM, 143}} {
		p := w.start("get-token")
		w.until("the prompt", func() bool { return strings.Contains(p.err.String(), "lasts until") })
		at := w.signal(p, test.signal)
		status := w.ended(p)
		// By itself, not by the signal: that would be -1.
		if took := time.Since(at); status != test.status || took > 2*time.Second || p.out.String() != "" {
			t.Errorf("%v: exit status %d after %v, want %d at once\n%s", test.signal, status, took, test.status, &p.err)
		}
	}

	// nohup, and a shell's background jobs: what was ignored from the start stays
	// ignored.
	p := w.startAs([]string{"sh", "-c", `trap "" HUP; exec kubectl-oidc_device "$@"`, "sh"}, "get-token")
	w.until("the prompt", func() bool { return strings.Contains(p.err.String(), "lasts until") })
	w.signal(p, syscall.SIGHUP)
	w.approve(p)
	w.token(p)
	if err := os.RemoveAll(filepath.Join(w.dir, "cache")); err != nil {
		t.Fatal(err)
	}

	p = w.renewing()
	w.signal(p, syscall.SIGINT)
	ended := make(chan struct{})
	go func() { w.ended(p); close(ended) }()
	select {
	case <-ended:
		t.Fatalf("the first signal was not held: %v\n%s", p.ProcessState, &p.err)
	case <-time.After(500 * time.Millisecond):
	}
	at := w.signal(p, syscall.SIGINT)
	<-ended
	ws, ok := p.ProcessState.Sys().(syscall.WaitStatus)
	if took := time.Since(at); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGINT || took > time.Second {
		t.Errorf("the second signal: %v after %v, want the program's end by it at once\n%s", p.ProcessState, took, &p.err)
	}
}
