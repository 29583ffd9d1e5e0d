package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

// TestReadmeTranscript types the commands of the README's first transcript, on
// a machine that has kubectl and a kubeconfig with a cluster, and nothing of
// ours. What is made up there is replaced by what is here, in both directions:
// the provider and its certificate authority (through the environment), the
// person, and where the program is installed from, which is this tree.
func TestReadmeTranscript(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	p := w.node
	readme, err := os.ReadFile(filepath.Join(w.root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, transcript, found := strings.Cut(string(readme), "<!-- replayed by hack/e2e, TestReadmeTranscript -->\n```console\n")
	transcript, _, ended := strings.Cut(transcript, "```")
	if !found || !ended {
		t.Fatal("the README has no transcript")
	}

	h := newHome(t, w, p, "kubectl")
	bin := filepath.Join(h.dir, "go", "bin")
	cluster, err := kube.Start(t.Context(), kube.Config{Bins: w.bins, Authentication: kube.AuthenticationConfiguration(
		kube.Issuer{URL: p.url, Audiences: []string{"kubectl"}, CA: w.ca.PEM})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Stop() })
	h.kubeconfig = filepath.Join(h.dir, ".kube", "config")
	if err := os.Mkdir(filepath.Dir(h.kubeconfig), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"config", "set-cluster", "production", "--server=" + cluster.URL, "--certificate-authority=" + cluster.CAFile},
		{"config", "set-context", "production", "--cluster=production"},
	} {
		if k := h.kubectl(args...); k.status() != 0 {
			t.Fatal(k)
		}
	}
	kubectl, err := filepath.EvalSymlinks(w.bins.Kubectl)
	if err != nil {
		t.Fatal(err)
	}

	commands := 0
	for step := range strings.SplitSeq("\n"+transcript, "\n$ ") {
		command, shown, _ := strings.Cut(step, "\n")
		if command == "" {
			continue
		}
		commands++
		if strings.HasPrefix(command, "go install ") {
			install := exec.CommandContext(t.Context(), "go", "install", "-C", w.root, ".")
			install.Env = append(os.Environ(), "GOBIN="+bin)
			if out, err := install.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			continue
		}
		line := strings.ReplaceAll(command, "https://idp.example.com", p.url)
		r := h.start("sh", "-c", `PATH=$1:$2:$PATH; export PATH OIDC_DEVICE_CERTIFICATE_AUTHORITY="$3" OIDC_DEVICE_TOKEN_CACHE_DIR="$4"; `+line, "sh", bin, filepath.Dir(kubectl), w.caFile, h.cacheDir)
		if strings.Contains(shown, "and go on only if it shows this code") {
			r.decide(true)
		} else {
			r.wait()
		}
		if r.status() != 0 {
			t.Fatalf("%s: %s", command, r)
		}
		said := made(r.heard()+r.stdout.String(), p)
		for want := range strings.Lines(shown) {
			want = strings.TrimRight(want, "\n")
			if want != "" && want != "…" && !slices.ContainsFunc(strings.Split(said, "\n"), func(l string) bool { return made(strings.TrimRight(l, " "), p) == made(want, p) }) {
				t.Errorf("%s does not say %q, but:\n%s", command, want, said)
			}
		}
	}
	if commands != 3 {
		t.Errorf("%d commands, not three", commands)
	}
}

// TestCompletionThroughKubectl completes as kubectl does at a TAB, with the
// program that "completion kubectl" prints.
func TestCompletionThroughKubectl(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	h := newHome(t, w, w.node, "kube")
	helper := filepath.Join(h.dir, "kubectl_complete-oidc_device")
	if err := os.WriteFile(helper, h.plugin("completion", "kubectl").stdout.Bytes(), 0o700); err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]string{
		"''":                    "get-token",
		"logout --context ''":   "test",
		"get-token --prompt ''": "never",
	} {
		r := h.run("sh", "-c", "PATH="+h.dir+":$PATH; exec "+w.bins.Kubectl+" __complete oidc-device "+typed)
		if !regexp.MustCompile(`(?m)^` + want + `(\t|$)`).MatchString(r.stdout.String()) {
			t.Errorf("%s does not give %s: %s", typed, want, r)
		}
	}
}

// made writes a text as the README would: with a provider, a person, a code and
// times that are made up.
func made(text string, p *provider) string {
	text = strings.ReplaceAll(text, p.url, "https://idp.example.com")
	text = strings.ReplaceAll(text, strings.TrimPrefix(p.url, "https://"), "idp.example.com")
	text = strings.ReplaceAll(text, p.user, "jane")
	for _, r := range [][2]string{
		{`[A-Z]{4}-[A-Z]{4}`, "WDJB-MJHT"},
		{`\d\d:\d\d:\d\d`, "14:32:10"},
		{`\((\d+m)?\d+s\)`, "(10m0s)"},
		{`(?m)^(oidc-device: wrote .*) \S*/(\.kube/config)`, "$1 ~/$2"},
		{`\S+/(\.kube/config)`, "~/$1"},
		{` +`, " "},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}
