package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"time"
)

// Bins are the paths of programs that run on this machine.
type Bins struct{ APIServer, Kubectl, Etcd string }

const module = "github.com/oidc-device/kubectl-oidc_device"

// Binaries builds kube-apiserver, kubectl and etcd as hack/kube/tools/go.mod
// pins them, and keeps them in the user's cache folder: the next call, from
// any process, only finds them there. The working directory must be inside
// this repository. What is done, and how long it takes, goes to log.
func Binaries(ctx context.Context, log io.Writer) (Bins, error) {
	root, err := Root()
	if err != nil {
		return Bins{}, err
	}
	tools := filepath.Join(root, "hack", "kube", "tools")
	key, version, err := toolsKey(ctx, tools)
	if err != nil {
		return Bins{}, fmt.Errorf("kube: %w", err)
	}
	cache, err := CacheDir()
	if err != nil {
		return Bins{}, err
	}
	dir := filepath.Join(cache, key)
	if _, err := os.Stat(dir); err == nil {
		return binsIn(dir), nil // a folder under its final name is complete
	}

	fmt.Fprintf(log, "kube: building kube-apiserver and kubectl %s, and etcd, for the first time: about 8 minutes on two cores,\n"+
		"kube: with 740 MB of modules, 3 GB of Go's build cache and 2.5 GB of memory; half a minute if Go has them in its cache\n", version)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Bins{}, err
	}
	unfinished, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return Bins{}, err
	}
	defer os.RemoveAll(unfinished) // gone already if all went well
	bins := binsIn(unfinished)
	for _, build := range []struct{ pkg, to string }{
		{"k8s.io/kubernetes/cmd/kubectl", bins.Kubectl},
		{"go.etcd.io/etcd/server/v3", bins.Etcd},
		{"k8s.io/kubernetes/cmd/kube-apiserver", bins.APIServer},
	} {
		begin := time.Now()
		// Without a version, the server runs but `kubectl version` fails.
		cmd := exec.CommandContext(ctx, "go", "build", "-C", tools, "-o", build.to,
			"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion="+version, build.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return Bins{}, fmt.Errorf("kube: building %s: %w\n%s", build.pkg, err, out)
		}
		fmt.Fprintf(log, "kube: built %s in %s\n", build.pkg, time.Since(begin).Round(time.Second))
	}
	// Of two processes that build at once, the second finds the folder taken
	// by the very same programs.
	if err := os.Rename(unfinished, dir); err != nil {
		if _, missing := os.Stat(dir); missing != nil {
			return Bins{}, err
		}
	}
	return binsIn(dir), nil
}

func binsIn(dir string) Bins {
	program := func(name string) string {
		if runtime.GOOS == "windows" {
			name += ".exe"
		}
		return filepath.Join(dir, name)
	}
	return Bins{APIServer: program("kube-apiserver"), Kubectl: program("kubectl"), Etcd: program("etcd")}
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*(?:require )?k8s\.io/kubernetes (v\S+)`)

// toolsKey names the binaries by all that goes into them.
func toolsKey(ctx context.Context, tools string) (key, version string, err error) {
	mod, err := os.ReadFile(filepath.Join(tools, "go.mod"))
	if err != nil {
		return "", "", err
	}
	sum, err := os.ReadFile(filepath.Join(tools, "go.sum"))
	if err != nil {
		return "", "", err
	}
	m := kubernetesVersion.FindSubmatch(mod)
	if m == nil {
		return "", "", errors.New("tools/go.mod does not require k8s.io/kubernetes")
	}
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	cmd.Dir = tools // a toolchain line there counts
	goVersion, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("go env GOVERSION: %w", err)
	}
	hash := sha256.New()
	for _, part := range [][]byte{mod, sum, bytes.TrimSpace(goVersion), []byte(runtime.GOOS + "/" + runtime.GOARCH)} {
		fmt.Fprintf(hash, "%d\n%s\n", len(part), part)
	}
	return hex.EncodeToString(hash.Sum(nil))[:32], string(m[1]), nil
}

// CacheDir is where what hack/ builds is kept: outside the tree, by a hash of
// what it was built from. It can be deleted at any time.
func CacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "kubectl-oidc_device-hack"), err
}

var mainModule = regexp.MustCompile(`(?m)^module ` + regexp.QuoteMeta(module) + `\s*$`)

// Root is the folder of the main module's go.mod, at or above the working
// directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		// The modules under hack/ have go.mod files of their own.
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && mainModule.Match(mod) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("kube: the working directory is not inside the module " + module)
		}
		dir = parent
	}
}
