package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

// home is a person's machine: folders, a kubeconfig, and an ear for everything
// that programs say there.
type home struct {
	t          *testing.T
	w          *world
	p          *provider
	client     string
	dir        string
	cacheDir   string
	kubeconfig string

	mu   sync.Mutex
	said []*bytes.Buffer // every stdout and stderr
}

// option changes the kubeconfig of a home.
type option func(*entry)

type entry struct {
	apiVersion string
	server     string
	ca         string
	args       []string
}

func execVersion(v string) option  { return func(e *entry) { e.apiVersion = v } }
func extraArgs(a ...string) option { return func(e *entry) { e.args = append(e.args, a...) } }
func at(c *kube.Cluster) option    { return func(e *entry) { e.server, e.ca = c.URL, c.CAFile } }

func newHome(t *testing.T, w *world, p *provider, client string, options ...option) *home {
	t.Helper()
	dir := t.TempDir()
	h := &home{t: t, w: w, p: p, client: client, dir: dir, cacheDir: filepath.Join(dir, "tokens")}
	h.kubeconfig = h.writeKubeconfig("config", options...)
	t.Cleanup(h.searchSecrets)
	return h
}

// flags name the session.
func (h *home) flags() []string {
	return []string{
		"--oidc-issuer-url=" + h.p.url,
		"--oidc-client-id=" + h.client,
		"--certificate-authority=" + h.w.caFile,
		"--token-cache-dir=" + h.cacheDir,
	}
}

// writeKubeconfig writes JSON, which kubectl reads as the YAML it is.
func (h *home) writeKubeconfig(name string, options ...option) string {
	h.t.Helper()
	e := &entry{apiVersion: "client.authentication.k8s.io/v1", server: h.w.cluster.URL, ca: h.w.cluster.CAFile}
	for _, o := range options {
		o(e)
	}
	type object = map[string]any
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []object{{"name": "test", "cluster": object{"server": e.server, "certificate-authority": e.ca}}},
		"users": []object{{"name": "person", "user": object{"exec": object{
			"apiVersion": e.apiVersion, "interactiveMode": "IfAvailable",
			"command": "kubectl-oidc_device",
			"args":    append(append([]string{"get-token"}, h.flags()...), e.args...),
		}}}},
		"contexts": []object{{"name": "test", "context": object{"cluster": "test", "user": "person"}}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// environment has nothing of this machine's that the plugin looks at: no CI,
// no display, no proxy.
func (h *home) environment() []string {
	return []string{
		"HOME=" + h.dir,
		"PATH=" + h.w.pluginDir + string(os.PathListSeparator) + os.Getenv("PATH"),
		"TMPDIR=" + h.w.dir,
		"KUBECONFIG=" + h.kubeconfig,
	}
}

// running is a program whose stderr can be read while it runs.
type running struct {
	h      *home
	cmd    *exec.Cmd
	name   string
	done   chan struct{}
	err    error
	ended  time.Time
	stdout bytes.Buffer

	mu     sync.Mutex
	stderr bytes.Buffer
	more   chan struct{}
}

// Write takes the program's stderr.
func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stderr.Write(b)
	select {
	case r.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (r *running) heard() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stderr.String()
}

// status is the exit status.
func (r *running) status() int { return r.cmd.ProcessState.ExitCode() }

func (r *running) String() string {
	return fmt.Sprintf("%s: exit status %d\nstdout:\n%s\nstderr:\n%s", r.name, r.status(), r.stdout.String(), r.heard())
}

const patience = 90 * time.Second

func (h *home) start(program string, args ...string) *running {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r := &running{h: h, name: filepath.Base(program) + " " + strings.Join(args, " "), done: make(chan struct{}), more: make(chan struct{}, 1)}
	r.cmd = exec.CommandContext(ctx, program, args...)
	r.cmd.Env, r.cmd.Dir = h.environment(), h.dir
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, r
	r.cmd.WaitDelay = 5 * time.Second
	if err := r.cmd.Start(); err != nil {
		cancel()
		h.t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		defer cancel()
		r.err = r.cmd.Wait()
		r.ended = time.Now()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.said = append(h.said, &r.stderr)
		// What get-token answers is a token.
		if !strings.Contains(r.name, " get-token") {
			h.said = append(h.said, &r.stdout)
		}
	}()
	h.t.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *running) wait() *running { <-r.done; return r }

func (h *home) run(program string, args ...string) *running { return h.start(program, args...).wait() }

// kubectl runs the one that the cluster came with.
func (h *home) kubectl(args ...string) *running {
	h.t.Helper()
	return h.run(h.w.bins.Kubectl, args...)
}

func (h *home) startKubectl(args ...string) *running {
	h.t.Helper()
	return h.start(h.w.bins.Kubectl, args...)
}

func (h *home) plugin(args ...string) *running {
	h.t.Helper()
	return h.run(filepath.Join(h.w.pluginDir, "kubectl-oidc_device"), args...)
}

var (
	anyLink  = regexp.MustCompile(`https://\S+/device\?user_code=\S+`)
	userCode = regexp.MustCompile(`\b[A-Z]{4}-[A-Z]{4}\b`)
)

// prompt waits until the person is asked, and reads the link and the code.
func (r *running) prompt() (link, code string) {
	t := r.h.t
	t.Helper()
	for {
		text := r.heard()
		if link = anyLink.FindString(text); link != "" && strings.Contains(text[strings.Index(text, link):], "\n") {
			if code = userCode.FindString(text); code == "" {
				t.Fatalf("a link but no code:\n%s", text)
			}
			if !strings.HasPrefix(link, r.h.p.url) || !strings.Contains(link, code) {
				t.Fatalf("the link %s, the code %s, the provider %s:\n%s", link, code, r.h.p.url, text)
			}
			return link, code
		}
		select {
		case <-r.more:
		case <-r.done:
			t.Fatalf("ended without a prompt: %s", r)
		}
	}
}

// asked says whether a program showed a prompt.
func (r *running) asked() bool { return anyLink.MatchString(r.heard()) }

// decide answers the prompt of a program, and waits for its end. It gives the
// time from the answer to the end.
func (r *running) decide(allow bool) time.Duration {
	t := r.h.t
	t.Helper()
	link, _ := r.prompt()
	decided, err := r.h.p.decide(link, allow)
	if err != nil {
		t.Fatal(err)
	}
	r.wait()
	return r.ended.Sub(decided)
}

// login logs in through kubectl.
func (h *home) login() *running {
	h.t.Helper()
	k := h.startKubectl("auth", "whoami", "-o", "json")
	k.decide(true)
	if k.status() != 0 {
		h.t.Fatalf("no login: %s", k)
	}
	return k
}

// searchSecrets ends every test: what was issued is in no output and in no
// file but the cache.
func (h *home) searchSecrets() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.said {
		if what, found := h.p.leak(b.String()); found {
			h.t.Errorf("a %s was said:\n%s", what, b)
		}
	}
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that is gone by now
		}
		if err != nil {
			return err
		}
		if path == h.cacheDir {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if what, found := h.p.leak(string(b)); found {
			h.t.Errorf("a %s is in %s", what, path)
		}
		return nil
	})
	if err != nil {
		h.t.Error(err)
	}
}

var sessionFile = regexp.MustCompile(`^[0-9a-f]{64}\.json$`)

// refreshToken is the one in the cache, or "".
func (h *home) refreshToken() string {
	h.t.Helper()
	files, err := os.ReadDir(h.cacheDir)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range files {
		if !sessionFile.MatchString(f.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(h.cacheDir, f.Name()))
		if err != nil {
			h.t.Fatal(err)
		}
		var content any
		if err := json.Unmarshal(b, &content); err != nil {
			h.t.Fatal(err)
		}
		if s := find(content, "refresh_token"); s != "" {
			return s
		}
	}
	return ""
}

// find gives the first string of this name, however deep.
func find(content any, name string) string {
	switch c := content.(type) {
	case map[string]any:
		if s, ok := c[name].(string); ok {
			return s
		}
		for _, v := range c {
			if s := find(v, name); s != "" {
				return s
			}
		}
	case []any:
		for _, v := range c {
			if s := find(v, name); s != "" {
				return s
			}
		}
	}
	return ""
}
