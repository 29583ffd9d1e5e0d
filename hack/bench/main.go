// The command bench measures what a cached token costs: the whole process of
// get-token, against an empty Go program and against one that only imports the
// same packages, all in one run and in turns, so that the ratios hold on any
// machine.
//
//	go run ./hack/bench
//
// It ends with status 1 if a ratio or the memory is above its aim.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

// Aims, as ratios of medians and in bytes.
const (
	aimEmpty   = 3.2
	aimImports = 1.25
	aimMemory  = 15 << 20
	aimStatus  = 100 * time.Millisecond
)

func main() {
	rounds := flag.Int("rounds", 300, "processes of each kind")
	flag.Parse()
	if err := run(*rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type subject struct {
	name, pkg string
	args, env []string
	before    func() error
	answer    string // part of what it prints
	every     int    // a run in each so many rounds; 0: in each
	path      string
	times     []time.Duration
	memory    int64
}

func run(rounds int) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	// A session with an hour to go. Nothing listens at its issuer: were
	// anything but the file needed, the run would fail.
	key := cache.Key{Issuer: "http://127.0.0.1:1", ClientID: "kubectl", Scopes: []string{"openid", "groups"}}
	now := time.Now()
	err = cache.NewDisk(filepath.Join(dir, "cache")).Save(&cache.Entry{
		Key: key, Token: cache.NewSecret(strings.Repeat("t", 1200)), RefreshToken: cache.NewSecret(strings.Repeat("r", 800)), Subject: "alice",
		TokenIssuedAt: now, TokenExpiresAt: now.Add(time.Hour), ApprovedAt: now,
	})
	if err != nil {
		return err
	}

	const module = "github.com/oidc-device/kubectl-oidc_device"
	plugin := &subject{name: "get-token, cached", pkg: module, answer: `"kind":"ExecCredential"`, args: []string{
		"get-token", "--oidc-issuer-url=" + key.Issuer, "--oidc-client-id=" + key.ClientID, "--oidc-extra-scope=groups",
		"--token-cache-dir=" + filepath.Join(dir, "cache"), "--prompt=never",
	}}
	// As kubectl runs it, a note is taken of who was given the token (see
	// cache.HandOut). Each run is the first of its client: the place where the
	// note goes is cut off before.
	lock := filepath.Join(dir, "cache", key.ID()+".lock")
	asKubectl := &subject{
		name: "(c) run by kubectl", pkg: module, answer: plugin.answer, args: plugin.args,
		env:    []string{`KUBERNETES_EXEC_INFO={"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false}}`},
		before: func() error { return os.Truncate(lock, 16<<10) },
	}
	unlock, err := cache.NewDisk(filepath.Join(dir, "cache")).Lock(context.Background(), key.ID(), nil)
	if err != nil {
		return err
	}
	unlock()
	// An inventory of a thousand sessions, in a folder of its own.
	many := filepath.Join(dir, "many")
	for n := range 1000 {
		k := key
		k.Scopes = append(slices.Clone(k.Scopes), fmt.Sprintf("scope-%d", n))
		err := cache.NewDisk(many).Save(&cache.Entry{
			Key: k, Token: cache.NewSecret(strings.Repeat("t", 1200)), RefreshToken: cache.NewSecret(strings.Repeat("r", 800)), Subject: "alice",
			TokenIssuedAt: now, TokenExpiresAt: now.Add(time.Hour), ApprovedAt: now,
		})
		if err != nil {
			return err
		}
	}
	status := &subject{
		name: "status, 1000 sessions", pkg: module, args: []string{"status", "-o", "json", "--token-cache-dir=" + many}, answer: `"kind": "SessionList"`,
		env: []string{"KUBECONFIG=" + filepath.Join(dir, "none")}, every: 10,
	}
	empty := &subject{name: "(a) empty program", pkg: module + "/hack/bench/empty"}
	imports := &subject{name: "(b) imports only", pkg: module + "/hack/bench/imports"}
	subjects := []*subject{empty, imports, plugin, asKubectl, status}
	for _, s := range subjects {
		s.path = filepath.Join(dir, filepath.Base(s.pkg))
		build := exec.Command("go", "build", "-ldflags=-s -w", "-o", s.path, s.pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %v\n%s", s.pkg, err, out)
		}
	}
	for round := range rounds + 10 {
		for _, s := range subjects {
			if s.every > 0 && round%s.every != 0 {
				continue
			}
			took, memory, err := once(s, dir)
			if err != nil {
				return err
			}
			if round >= 10 { // before it, the caches warm up
				s.times = append(s.times, took)
				s.memory = max(s.memory, memory)
			}
		}
	}

	fmt.Printf("%-22s %10s %10s %12s\n", "", "median", "p90", "memory")
	for _, s := range subjects {
		fmt.Printf("%-22s %10s %10s %9.1f MB\n", s.name, s.quantile(0.5), s.quantile(0.9), float64(s.memory)/(1<<20))
	}
	if info, err := os.Stat(lock); err != nil || info.Size() <= 16<<10 {
		return fmt.Errorf("no note was taken of the client (%v)", err)
	}
	a, b := ratio(plugin, empty), ratio(plugin, imports)
	fmt.Printf("get-token / (a) = %.2f (aim: at most %.2f)\n", a, aimEmpty)
	fmt.Printf("get-token / (b) = %.2f (aim: at most %.2f)\n", b, aimImports)
	fmt.Printf("run by kubectl / by hand = %.2f\n", ratio(asKubectl, plugin))
	fmt.Printf("resident memory, at its highest: %.1f MB (aim: at most %d MB)\n", float64(plugin.memory)/(1<<20), aimMemory>>20)
	fmt.Printf("status of 1000 sessions: %s (aim: at most %s)\n", status.quantile(0.5), aimStatus)
	if status.quantile(0.5) > aimStatus || a > aimEmpty || b > aimImports || plugin.memory > aimMemory {
		return fmt.Errorf("above its aim")
	}
	return nil
}

// once runs a process to its end. Its output goes to a file: a pipe would add
// the time in which this program wakes up to read it.
func once(s *subject, dir string) (time.Duration, int64, error) {
	out, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		return 0, 0, err
	}
	defer out.Close()
	cmd := exec.Command(s.path, s.args...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Env = append(os.Environ(), s.env...)
	if s.before != nil {
		if err := s.before(); err != nil {
			return 0, 0, err
		}
	}
	start := time.Now()
	err = cmd.Run()
	took := time.Since(start)
	if err == nil && s.answer != "" {
		answer, rerr := os.ReadFile(out.Name())
		if rerr != nil || !strings.Contains(string(answer), s.answer) {
			err = fmt.Errorf("no %s in %.200q (%v)", s.answer, answer, rerr)
		}
	}
	return took, peakMemory(cmd.ProcessState), err
}

func (s *subject) quantile(q float64) time.Duration {
	slices.Sort(s.times)
	return s.times[int(q*float64(len(s.times)-1))].Round(10 * time.Microsecond)
}

func ratio(a, b *subject) float64 { return float64(a.quantile(0.5)) / float64(b.quantile(0.5)) }
