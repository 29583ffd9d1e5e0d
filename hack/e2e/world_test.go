package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

// world is what all tests share: it is made when the first one asks for it.
type world struct {
	root      string // of the repository
	dir       string
	bins      kube.Bins
	pluginDir string
	nodeDir   string
	caFile    string
	ca        *kube.CA
	node      *provider
	zitadel   *provider
	cluster   *kube.Cluster
}

var (
	theWorld  *world
	makeWorld = sync.OnceValue(func() error {
		theWorld = &world{}
		return theWorld.make(context.Background())
	})
)

func TestMain(m *testing.M) {
	// Tests mostly wait, for polling intervals and for tokens to expire; how
	// many processors there are says little about how many can wait at once.
	flag.Parse()
	parallel := true
	flag.Visit(func(f *flag.Flag) { parallel = parallel && f.Name != "test.parallel" })
	if parallel {
		flag.Set("test.parallel", "6") // it is a number
	}
	status := m.Run()
	if theWorld != nil {
		if status != 0 && theWorld.cluster != nil {
			fmt.Fprintf(os.Stderr, "e2e: the API server's log ends:\n%s", theWorld.cluster.Log())
		}
		theWorld.end()
	}
	os.Exit(status)
}

func theParts(t *testing.T) *world {
	t.Helper()
	if err := makeWorld(); err != nil {
		t.Fatal(err)
	}
	return theWorld
}

func (w *world) make(ctx context.Context) (err error) {
	if w.root, err = kube.Root(); err != nil {
		return err
	}
	if w.dir, err = os.MkdirTemp("", "oidc-device-e2e-"); err != nil {
		return err
	}
	if w.bins, err = kube.Binaries(ctx, os.Stderr); err != nil {
		return err
	}
	w.pluginDir = filepath.Join(w.dir, "bin")
	build := exec.CommandContext(ctx, "go", "build", "-C", w.root, "-o", filepath.Join(w.pluginDir, "kubectl-oidc_device"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the plugin: %w\n%s", err, out)
	}
	if w.ca, err = kube.NewCA("oidc-device test providers"); err != nil {
		return err
	}
	w.caFile = filepath.Join(w.dir, "ca.crt")
	if err := os.WriteFile(w.caFile, w.ca.PEM, 0o600); err != nil {
		return err
	}
	if w.nodeDir, err = nodeFolder(ctx, w.root, w.dir); err != nil {
		return err
	}
	if w.node, err = startNode(ctx, w.ca, w.nodeDir); err != nil {
		return err
	}
	if w.zitadel, err = startZitadel(w.ca); err != nil {
		return err
	}
	begin := time.Now()
	w.cluster, err = kube.Start(ctx, kube.Config{Bins: w.bins, Authentication: kube.AuthenticationConfiguration(
		kube.Issuer{URL: w.node.url, Audiences: audiences(), CA: w.ca.PEM},
		kube.Issuer{URL: w.zitadel.url, Audiences: audiences(), CA: w.ca.PEM},
	)})
	if err == nil {
		fmt.Fprintf(os.Stderr, "e2e: etcd and kube-apiserver were ready in %s\n", time.Since(begin).Round(100*time.Millisecond))
	}
	return err
}

func (w *world) end() {
	if w.cluster != nil {
		if err := w.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}
	for _, p := range []*provider{w.node, w.zitadel} {
		if p != nil {
			p.close()
		}
	}
	os.RemoveAll(w.dir) // a temporary folder
}

// eachProvider runs a test at both providers at once.
func eachProvider(t *testing.T, test func(t *testing.T, w *world, p *provider)) {
	t.Parallel()
	w := theParts(t)
	for _, p := range []*provider{w.node, w.zitadel} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, w, p)
		})
	}
}
