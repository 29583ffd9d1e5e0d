package cli_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// A laptop that sleeps, or a job that is stopped, wakes when the code is dead.
func TestSuspended(t *testing.T) {
	realProgram(t)
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) { b.CodeLifetime = 3 * time.Second })
	p := w.start("get-token")
	w.until("a poll", func() bool { return w.is.Count("poll") > 0 })
	w.signal(p, syscall.SIGSTOP)
	w.until("the stop", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		return err == nil && bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" T"))
	})
	polls := w.is.Count("poll")
	time.Sleep(time.Until(w.is.Requests("device")[0].Time.Add(3500 * time.Millisecond))) // the code's life
	at := w.signal(p, syscall.SIGCONT)
	status := w.ended(p)
	more := w.is.Count("poll") - polls
	t.Logf("it ended %v after it went on, with %d polls", time.Since(at).Round(time.Millisecond), more)
	if took := time.Since(at); status != 5 || took > 3*time.Second || more > 1 {
		t.Errorf("exit status %d after %v and %d polls, want 5 at once\n%s", status, took, more, &p.err)
	}
}

// straced makes start run the real program under strace for the rest of the
// test, and gives the file in which the trace will be.
func straced(t *testing.T, options string) (trace string) {
	t.Helper()
	real := realProgram(t)
	if out, err := exec.Command("strace", "-f", "-qq", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		if os.Getenv("TEST_IN_CI") != "" {
			t.Fatalf("strace does not work here: %v\n%s", err, out)
		}
		t.Skipf("strace does not work here: %v", err)
	}
	dir := t.TempDir()
	trace = filepath.Join(dir, "trace")
	script := fmt.Sprintf("#!/bin/sh\nexec strace -f -qq -o '%s' %s '%s' \"$@\"\n", trace, options, real)
	if err := os.WriteFile(filepath.Join(dir, "kubectl-oidc_device"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return trace
}

// Some network file systems have no locks. The program says so, and works.
func TestFolderWithoutLocks(t *testing.T) {
	// What is not traced is not tampered with either.
	trace := straced(t, "-e trace=flock -e inject=flock:error=ENOLCK")
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 })
	p := w.start("get-token")
	token := w.token(p)
	if log, err := os.ReadFile(trace); err != nil || !bytes.Contains(log, []byte("(INJECTED)")) {
		t.Fatalf("the program has not asked for a lock (%v)\n%s", err, log)
	}
	if n := strings.Count(p.err.String(), "no lock can be had"); n != 1 {
		t.Errorf("%d warnings, want 1\n%s", n, &p.err)
	}
	realProgram(t)
	p = w.start("get-token")
	if again := w.token(p); again != token || w.is.Count("device") != 1 || p.err.String() != "" {
		t.Errorf("the same token: %v; %d logins; want it out of the cache, without a word\n%s", again == token, w.is.Count("device"), &p.err)
	}
}

// A rotated refresh token is safe on the disk before anybody hears of the new
// token: content, name and folder, in this order.
func TestSyscallOrderOfASave(t *testing.T) {
	// -y shows the paths of descriptors, -s 0 keeps the token out of the trace.
	trace := straced(t, "-y -s 0 -e trace=fsync,rename,renameat,renameat2,openat,write")
	w := newWorld(t)
	w.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 })
	w.token(w.start("get-token"))
	w.token(w.start("get-token", "--force-refresh", "--prompt=never")) // its trace replaces the other's
	log, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := filepath.EvalSymlinks(filepath.Join(w.dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	var id string
	for _, name := range names(t, folder) {
		if s, ok := strings.CutSuffix(name, ".json"); ok && len(s) == 64 {
			id = s
		}
	}

	var temporary string
	var order []string
	for _, c := range syscalls(t, string(log)) {
		switch _, at, _ := strings.Cut(c.text, "<"); {
		case strings.HasPrefix(c.text, "fsync(") && strings.HasPrefix(at, folder+"/."+id+".json"):
			temporary, _, _ = strings.Cut(at, ">")
			order = append(order, c.edge+" fsync of the temporary file")
		case strings.HasPrefix(c.text, "fsync(") && strings.HasPrefix(at, folder+">"):
			order = append(order, c.edge+" fsync of the folder")
		case strings.HasPrefix(c.text, "rename") && strings.Contains(c.text, `"`+temporary+`"`) && strings.Contains(c.text, `"`+folder+"/"+id+`.json"`):
			order = append(order, c.edge+" rename")
		case strings.HasPrefix(c.text, "write(1<") && c.edge == "begin":
			order = append(order, "write to stdout")
		}
	}
	want := "begin fsync of the temporary file, end fsync of the temporary file, begin rename, end rename, " +
		"begin fsync of the folder, end fsync of the folder, write to stdout"
	if got := strings.Join(order, ", "); got != want {
		t.Errorf("it did: %s\nwant:   %s\n%s", got, want, log)
	}
}

// call is the begin or the end of a system call.
type call struct{ edge, text string }

// syscalls reads a trace of several threads, in which a call may be cut in two
// by what another thread does: "7 fsync(3<f> <unfinished ...>", and later
// "7 <... fsync resumed>) = 0". Every call must have succeeded, but openat.
func syscalls(t *testing.T, trace string) []call {
	t.Helper()
	var calls []call
	open := map[string]string{}
	for line := range strings.Lines(trace) {
		pid, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		text = strings.TrimSpace(text)
		begun, cut := strings.CutSuffix(text, " <unfinished ...>")
		switch {
		case strings.HasPrefix(text, "---") || strings.HasPrefix(text, "+++"): // signals and ends
			continue
		case cut:
			open[pid] = begun
			calls = append(calls, call{"begin", begun})
			continue
		case strings.HasPrefix(text, "<... "):
			calls = append(calls, call{"end", open[pid]})
		default:
			calls = append(calls, call{"begin", text}, call{"end", text})
		}
		if strings.Contains(text, ") = -1") && !strings.Contains(text, "openat") {
			t.Errorf("failed: %s %s", text, open[pid])
		}
	}
	return calls
}

// No answer of a provider, or of whoever sits in between, makes the program
// large: it often runs in a small container beside something that matters.
func TestMemoryWhateverTheProviderSends(t *testing.T) {
	const most = 30 << 10 // KiB
	real := realProgram(t)
	measured := filepath.Join(filepath.Dir(real), "measured", "kubectl-oidc_device")
	if err := build(measured, "./testdata/maxrss"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MAXRSS_OF", real)
	t.Setenv("PATH", filepath.Dir(measured)+string(os.PathListSeparator)+os.Getenv("PATH"))

	// A little less than a MiB, which is the most that is read.
	const size = 1<<20 - 4<<10
	texts := func(s string) []string { return strings.Split(strings.Repeat(s+" ", size/(len(s)+3)-1)+s, " ") }
	deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	nested := json.RawMessage("[" + strings.Repeat(deep+",", size/len(deep)-1) + deep + "]")
	bomb := zeros(t, 200<<20)
	for _, test := range []struct {
		name   string
		status int
		send   func(*issuer.Issuer)
	}{
		{"nothing special", 0, func(*issuer.Issuer) {}},
		{"discovery with many scopes", 0, func(is *issuer.Issuer) {
			is.Set(func(b *issuer.Behaviour) { b.DiscoveryFields = map[string]any{"scopes_supported": texts("")} })
		}},
		{"keys that are none", 8, func(is *issuer.Issuer) {
			is.Fault("jwks", -1, issuer.Answer(200, "application/json", `{"keys":[`+strings.Repeat("{},", size/3)+`{}]}`))
		}},
		{"device answer with nested arrays", 0, func(is *issuer.Issuer) {
			is.Set(func(b *issuer.Behaviour) { b.DeviceFields["more"] = nested })
		}},
		{"device answer of nested arrays", 6, func(is *issuer.Issuer) {
			is.Fault("device", -1, issuer.Answer(200, "application/json", strings.Repeat("[", size/2)+strings.Repeat("]", size/2)))
		}},
		{"token answer with many scopes", 0, func(is *issuer.Issuer) {
			is.Set(func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"scope": texts("a")} })
		}},
		{"gzip bomb as discovery", 6, func(is *issuer.Issuer) {
			is.Fault("discovery", -1, issuer.Answer(200, "application/json", bomb, "Content-Encoding", "gzip"))
		}},
		{"gzip bomb as token answer", 5, func(is *issuer.Issuer) {
			is.Fault("poll", -1, issuer.Answer(200, "application/json", bomb, "Content-Encoding", "gzip"))
		}},
		{"large headers of discovery", 6, func(is *issuer.Issuer) { is.Fault("discovery", -1, headers(8<<20)) }},
		{"large headers of token answer", 5, func(is *issuer.Issuer) { is.Fault("poll", -1, headers(8<<20)) }},
		{"headers without end", 6, func(is *issuer.Issuer) { is.Fault("discovery", -1, headersWithoutEnd) }},
		{"body of 3 MiB as discovery", 6, func(is *issuer.Issuer) {
			is.Fault("discovery", -1, issuer.Answer(200, "application/json", `"`+strings.Repeat("x", 3<<20)+`"`))
		}},
		{"body of 3 MiB as token answer", 5, func(is *issuer.Issuer) {
			is.Fault("poll", -1, issuer.Answer(200, "application/json", `"`+strings.Repeat("x", 3<<20)+`"`))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.is.Set(func(b *issuer.Behaviour) {
				b.ApproveAfterPolls, b.DeviceFields = 1, map[string]any{"interval": 0.05}
			})
			test.send(w.is)
			figure := filepath.Join(w.dir, "maxrss")
			t.Setenv("MAXRSS_TO", figure)
			start := time.Now()
			p := w.start("get-token", "--authentication-timeout=5s")
			status := w.ended(p)
			took := time.Since(start).Round(10 * time.Millisecond)
			text, err := os.ReadFile(figure)
			if err != nil {
				t.Fatal(err)
			}
			kib, err := strconv.Atoi(string(text))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.1f MiB, exit status %d, %v", float64(kib)/1024, status, took)
			if kib > most {
				t.Errorf("it had %.1f MiB, want less than %d", float64(kib)/1024, most/1024)
			}
			if status != test.status {
				t.Errorf("exit status %d, want %d\n%.2000s", status, test.status, &p.err)
			}
		})
	}
}

// zeros gives that many of them, compressed.
func zeros(t *testing.T, n int64) string {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for ; n > 0; n -= int64(len(block)) {
		if _, err := z.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// headers puts thousands of header fields before the issuer's own answer.
func headers(size int) issuer.Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		value := strings.Repeat("x", 1<<10)
		for i := range size >> 10 {
			w.Header().Set(fmt.Sprintf("X-Padding-%d", i), value)
		}
		return false
	}
}

// headersWithoutEnd sends header fields until the client has enough.
func headersWithoutEnd(w http.ResponseWriter, _ *http.Request) bool {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	_, err = io.WriteString(connection, "HTTP/1.1 200 OK\r\n")
	for i := 0; err == nil; i++ {
		_, err = fmt.Fprintf(connection, "X-Padding-%d: %s\r\n", i, strings.Repeat("x", 1<<10))
	}
	return true
}
