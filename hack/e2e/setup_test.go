package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

// TestSetup types what setup says, and feeds what it prints to API servers:
// the AuthenticationConfiguration to one, the older flags to another, the RBAC
// binding to kubectl, and the allowlist entry to kubectl's preferences.
func TestSetup(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	p := w.node
	h := newHome(t, w, p, "setup")
	setup := func(args ...string) string {
		t.Helper()
		r := h.plugin(append(append([]string{"setup"}, args...), h.flags()...)...)
		if r.status() != 0 {
			t.Fatal(r)
		}
		return r.stdout.String()
	}
	cluster, err := kube.Start(t.Context(), kube.Config{Bins: w.bins, Authentication: setup("--dry-run", "-o", "authentication-config")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Stop() })

	// A kubeconfig as kubectl makes it, that knows the cluster and no user.
	h.kubeconfig = filepath.Join(h.dir, "real")
	for _, args := range [][]string{
		{"config", "set-cluster", "real", "--server=" + cluster.URL, "--certificate-authority=" + cluster.CAFile},
		{"config", "set-context", "real", "--cluster=real"},
		{"config", "use-context", "real"},
	} {
		if k := h.kubectl(args...); k.status() != 0 {
			t.Fatal(k)
		}
	}
	printed := setup("--context=real")
	if !strings.HasSuffix(printed, "\nkubectl --context=real auth whoami\n") {
		t.Errorf("the next command is not the last line:\n%s", printed)
	}
	// Only what is on the list may run; another name keeps the plugin out.
	kuberc := setup("--dry-run", "-o", "kuberc")
	preferences := filepath.Join(h.dir, ".kube", "kuberc")
	if err := os.MkdirAll(filepath.Dir(preferences), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(preferences, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(kuberc, "kubectl-oidc_device", "kubectl-another", 1))
	if k := h.kubectl("auth", "whoami"); k.status() == 0 || k.asked() || !strings.Contains(k.heard(), "allowlist") {
		t.Errorf("not kept out by kubectl's allowlist: %s", k)
	}
	write(kuberc)
	k := h.startKubectl("--context=real", "auth", "whoami", "-o", "json")
	k.decide(true)
	k.whoami()

	binding := filepath.Join(h.dir, "binding.yaml")
	if err := os.WriteFile(binding, []byte(setup("--dry-run", "-o", "rbac", "--rbac-group="+p.groups[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	if k := h.kubectl("--kubeconfig="+cluster.AdminKubeconfig, "apply", "-f", binding); k.status() != 0 {
		t.Error(k)
	}

	flags := strings.Split(strings.TrimSpace(setup("--dry-run", "-o", "flags")), "\n")
	older, err := kube.Start(t.Context(), kube.Config{Bins: w.bins, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { older.Stop() })
	if k := h.kubectl("config", "set-cluster", "real", "--server="+older.URL, "--certificate-authority="+older.CAFile); k.status() != 0 {
		t.Fatal(k)
	}
	again := h.kubectl("auth", "whoami", "-o", "json")
	again.whoami()
	again.silent(1)
}
