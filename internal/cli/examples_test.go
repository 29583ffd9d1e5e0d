package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/internal/cli"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// example is the shell of a job, as its system runs it.
type example struct {
	env     map[string]string
	install []string // is read, and not run: it needs the network
	job     []string // one shell each; after one that fails, only
	end     []string // these
	tmp     string   // the variable of the folder that it uses
	tmpEnd  string   // and what the job puts behind it
	system  string   // the variable that makes it a job of that system
}

func TestExamples(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the examples are for sh")
	}
	for name, e := range map[string]*example{
		"github-workflow.yaml": readGitHub(t), "gitlab-ci.yaml": readGitLab(t), "Jenkinsfile": readJenkins(t),
	} {
		t.Run(name, func(t *testing.T) {
			all := append(append(append([]string{}, e.install...), e.job...), e.end...)
			checkFlags(t, all)
			for _, script := range all {
				if out, err := shell(t, script, "-n", nil); err != nil {
					t.Errorf("%v\n%s\n%s", err, out, script)
				}
			}
			e.run(t, true)
			e.run(t, false)
		})
	}
}

// strictly reads YAML into a struct that must have each of its fields.
func strictly(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "hack", "examples", name))
	if err == nil {
		err = yaml.UnmarshalStrict(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func readGitHub(t *testing.T) *example {
	var w struct {
		Name        string
		On          string `json:"true"` // what YAML 1.1 makes of on
		Permissions map[string]string
		Jobs        map[string]struct {
			RunsOn         string `json:"runs-on"`
			TimeoutMinutes int    `json:"timeout-minutes"`
			Env            map[string]string
			Steps          []struct {
				Name, Uses, Run, If string
				With                map[string]any
			}
		}
	}
	strictly(t, "github-workflow.yaml", &w)
	job := w.Jobs["deploy"]
	e := &example{env: job.Env, tmp: "RUNNER_TEMP", system: "GITHUB_ACTIONS"}
	for _, step := range job.Steps {
		switch {
		case step.Run == "":
		case strings.HasPrefix(step.Run, "go install "):
			e.install = append(e.install, step.Run)
		case step.If == "always()":
			e.end = append(e.end, step.Run)
		default:
			e.job = append(e.job, step.Run)
		}
	}
	return e
}

func readGitLab(t *testing.T) *example {
	var f struct {
		Deploy struct {
			Image, When, Timeout string
			Variables            map[string]string
			BeforeScript         []string `json:"before_script"`
			Script               []string `json:"script"`
			AfterScript          []string `json:"after_script"`
		}
	}
	strictly(t, "gitlab-ci.yaml", &f)
	job := f.Deploy
	join := func(lines []string) []string { return []string{strings.Join(lines, "\n")} } // one shell runs them all
	return &example{
		env: job.Variables, install: join(job.BeforeScript), job: join(job.Script), end: join(job.AfterScript),
		tmp: "CI_PROJECT_DIR", tmpEnd: ".tmp", system: "GITLAB_CI",
	}
}

func readJenkins(t *testing.T) *example {
	b, err := os.ReadFile("../../hack/examples/Jenkinsfile")
	if err != nil {
		t.Fatal(err)
	}
	e := &example{env: map[string]string{}, tmp: "WORKSPACE_TMP", system: "JENKINS_URL"}
	for _, m := range regexp.MustCompile(`(?m)^    ([A-Z_]+) = '([^']*)'$`).FindAllStringSubmatch(string(b), -1) {
		e.env[m[1]] = m[2]
	}
	job, end, found := strings.Cut(string(b), "\n  post {")
	if !found {
		t.Fatal("there is no post section")
	}
	scripts := func(s string) (all []string) {
		for _, m := range regexp.MustCompile(`(?s)sh '''\n(.*?)'''`).FindAllStringSubmatch(s, -1) {
			all = append(all, strings.ReplaceAll(m[1], `\\`, `\`)) // Groovy's escape
		}
		return all
	}
	all := scripts(job)
	e.install, e.job, e.end = all[:1], all[1:], scripts(end)
	return e
}

// checkFlags gives each command line of ours to the program, which knows its
// own flags.
func checkFlags(t *testing.T, scripts []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, script := range scripts {
		script = strings.ReplaceAll(script, "\\\n", " ")
		for _, m := range regexp.MustCompile(`(?m)^\s*kubectl-oidc_device ([^|>\n]*)`).FindAllStringSubmatch(script, -1) {
			args := strings.Fields(strings.ReplaceAll(m[1], `"`, ""))
			seen[args[0]] = true
			var out bytes.Buffer
			if status := cli.Main(nil, append(args, "-h"), &out, &out); status != 0 {
				t.Errorf("%s: exit status %d\n%s", args, status, out.String())
			}
		}
	}
	if !seen["get-token"] || !seen["logout"] {
		t.Errorf("it runs only %v", seen)
	}
}

// kubectlStub stands for kubectl, and for nothing else: it looks for the token
// where kubectl would, and for what must not be in its arguments.
const kubectlStub = `#!/bin/sh
set -eu
case "$*" in *eyJ*) echo "a token is in the arguments" >&2; exit 1;; esac
config=${1#--kubeconfig=}
file=$(sed -n 's/.*tokenFile"*: "\([^"]*\)".*/\1/p' "$config")
case "$(cat "$file")" in eyJ*.*.*) ;; *) echo "no token is in $file" >&2; exit 1;; esac
for f in "$file" "$config"; do
	case "$(ls -l "$f")" in -rw-------*) ;; *) echo "$f is open to others" >&2; exit 1;; esac
done
cp "$config" "$STUB_SAW"
exit $STUB_STATUS
`

// run runs the job, whose kubectl succeeds or fails, and looks whether anything
// of the session is left.
func (e *example) run(t *testing.T, succeeds bool) {
	t.Helper()
	is, err := issuer.Start(issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer is.Close()
	is.Set(func(b *issuer.Behaviour) {
		b.ApproveAfterPolls, b.ClientID = 1, "ci"
		b.DeviceFields = map[string]any{"interval": 0.05}
	})
	dir := t.TempDir()
	bin, tmp, saw := filepath.Join(dir, "bin"), filepath.Join(dir, "job"), filepath.Join(dir, "saw")
	for _, d := range []string{bin, tmp} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(kubectlStub), 0o755); err != nil {
		t.Fatal(err)
	}
	status := 0
	if !succeeds {
		status = 9
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, e.tmp + "=" + tmp, e.system + "=true",
		"STUB_SAW=" + saw, fmt.Sprintf("STUB_STATUS=%d", status)}
	for name, value := range e.env {
		if name == "OIDC_DEVICE_ISSUER_URL" {
			value = is.URL()
		}
		env = append(env, name+"="+value)
	}
	var log strings.Builder
	failed := false
	for _, script := range e.job {
		out, err := shell(t, script, "-eu", env)
		log.WriteString(out)
		if failed = err != nil; failed {
			break
		}
	}
	if failed == succeeds {
		t.Errorf("the job failed: %v\n%s", failed, log.String())
	}
	live := is.RefreshTokens()
	for _, script := range e.end {
		out, err := shell(t, script, "-eu", env)
		log.WriteString(out)
		if err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	}
	// What kubectl was given.
	var config struct {
		Clusters []struct{ Cluster struct{ Server string } }
		Contexts []struct{ Name string }
		Current  string `json:"current-context"`
	}
	b, err := os.ReadFile(saw)
	if err == nil {
		err = yaml.Unmarshal(b, &config)
	}
	if err != nil || config.Current != config.Contexts[0].Name || config.Clusters[0].Cluster.Server != e.env["KUBE_SERVER"] {
		t.Errorf("the kubeconfig: %v\n%s", err, b)
	}
	// Nothing is left: on disk, at the provider, in the log.
	if left, _ := filepath.Glob(tmp + e.tmpEnd + "/*"); len(left) > 0 {
		t.Errorf("the job leaves %v", left)
	}
	if len(live) != 1 || !is.Revoked(live[0]) {
		t.Errorf("the session is not revoked: %d", len(live))
	}
	hidden := hideLines.ReplaceAllString(log.String(), "")
	for _, secret := range is.Sentinels() {
		if strings.Contains(hidden, secret) {
			t.Errorf("a secret is in the log:\n%s", log.String())
		}
	}
}

func shell(t *testing.T, script, flags string, env []string) (output string, err error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", flags, "-c", script)
	c.Env, c.Dir = env, t.TempDir()
	out, err := c.CombinedOutput()
	return string(out), err
}
