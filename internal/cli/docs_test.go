package cli

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

var everyCommand = []string{"get-token", "login", "logout", "setup", "doctor", "status", "completion", "version"}

// What -h says is read here before it is read by people. After a change:
// UPDATE_GOLDEN=1 go test ./internal/cli -run TestHelp
func TestHelp(t *testing.T) {
	for _, name := range everyCommand {
		var out bytes.Buffer
		if status := Main(nil, []string{name, "-h"}, &out, &out); status != 0 {
			t.Errorf("%s -h: exit status %d", name, status)
		}
		got := strings.ReplaceAll(out.String(), cache.DefaultDir(), "$XDG_CACHE_HOME/kubectl-oidc_device")
		got = strings.ReplaceAll(got, defaultTrail(), "$XDG_STATE_HOME/kubectl-oidc_device/audit.jsonl")
		golden := filepath.Join("testdata", "help", name+".golden")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s -h is not %s:\n%s", name, golden, got)
		}
	}
}

// Each example of -h is a call that its command takes. It is not run.
func TestHelpExamples(t *testing.T) {
	call := regexp.MustCompile(`(?:kubectl oidc-device|kubectl-oidc_device) ([^|>)]+)`)
	for _, name := range everyCommand {
		examples := strings.Split(newCommand(name).Example, "\n\n")
		want := 2
		if name == "version" { // there is no other way to call it
			want = 1
		}
		if len(examples) < want {
			t.Errorf("%s -h has %d examples, want %d", name, len(examples), want)
		}
		for _, text := range examples {
			if !strings.HasPrefix(text, "  # ") {
				t.Errorf("%s -h does not say what an example is for:\n%s", name, text)
			}
			calls := 0
			for line := range strings.SplitSeq(text, "\n") {
				m := call.FindStringSubmatch(line)
				if m == nil || strings.HasPrefix(line, "  #") {
					continue
				}
				calls++
				args := strings.Fields(m[1])
				if args[0] != name {
					t.Errorf("%s -h shows %s", name, args[0])
					continue
				}
				c := newCommand(name)
				err := c.ParseFlags(args[1:])
				if err == nil {
					err = c.ValidateArgs(c.Flags().Args())
				}
				if err != nil {
					t.Errorf("%s -h shows %q: %v", name, m[1], err)
				}
				c.Flags().Visit(func(f *pflag.Flag) {
					known := choices(f.Name)
					if f.Name == "output" {
						known = outputs(name)
					}
					if known != nil && !slices.Contains(known, f.Value.String()) {
						t.Errorf("%s -h shows --%s=%s", name, f.Name, f.Value)
					}
				})
			}
			if calls == 0 {
				t.Errorf("%s -h has an example without a call:\n%s", name, text)
			}
		}
	}
}

// Every flag has the environment variable of the contract, and says so.
func TestEveryFlagHasItsVariable(t *testing.T) {
	for flag, want := range map[string]string{
		"oidc-issuer-url": "OIDC_DEVICE_ISSUER_URL", "token-cache-dir": "OIDC_DEVICE_TOKEN_CACHE_DIR", "prompt": "OIDC_DEVICE_PROMPT",
	} {
		if got := envName(flag); got != want {
			t.Errorf("--%s: %s, want %s", flag, got, want)
		}
	}
	for _, name := range everyCommand {
		var out bytes.Buffer
		Main(nil, []string{name, "-h"}, &out, &out)
		newCommand(name).Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(out.String(), "[$"+envName(f.Name)+"]") {
				t.Errorf("%s -h does not name the variable of --%s", name, f.Name)
			}
		})
	}
}

// The README names no command and no flag that the program does not have.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := []string{"all", "local", "output", "help",
		// of others: kube-apiserver, kubectl, git
		"oidc-username-claim", "oidc-username-prefix", "oidc-groups-claim", "oidc-groups-prefix", "oidc-ca-file", "authentication-config", "token"}
	for _, name := range everyCommand {
		newCommand(name).Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	}
	flags := regexp.MustCompile(`--([a-z][-a-z]+)`).FindAllSubmatch(readme, -1)
	if len(flags) < 20 {
		t.Fatalf("found %d flags in the README: is it read rightly?", len(flags))
	}
	for _, m := range flags {
		if !slices.Contains(known, string(m[1])) {
			t.Errorf("the README names --%s, which nothing has", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?:kubectl oidc-device|kubectl-oidc_device) ([a-z][-a-z]+)`).FindAllSubmatch(readme, -1) {
		if !slices.Contains(everyCommand, string(m[1])) {
			t.Errorf("the README names the command %q, which is not there", m[1])
		}
	}
	// Every exit status of the program is in its table.
	for _, status := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "129, 130, 143"} {
		if !bytes.Contains(readme, []byte("\n| "+status+" | ")) {
			t.Errorf("exit status %s is not in the README", status)
		}
	}
}

// Every file that a help text, a hint or a comment names is there.
func TestHelpNamesFiles(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range regexp.MustCompile(`\bhack/[\w./-]*\w`).FindAllString(string(text), -1) {
			named++
			if _, err := os.Stat(filepath.Join("..", "..", path)); err != nil {
				t.Errorf("%s names %s, which is not there", source, path)
			}
		}
	}
	if named == 0 {
		t.Error("no source names a file: are they read rightly?")
	}
}

// The packages are leaves, and what makes kubectl heavy stays out of the
// binary.
func TestLayout(t *testing.T) {
	const module = "github.com/oidc-device/kubectl-oidc_device"
	deps := func(pkg string) []string {
		out, err := exec.Command("go", "list", "-deps", module+pkg).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		return strings.Fields(string(out))
	}
	for _, leaf := range []string{"/execcred", "/cache", "/flow"} {
		for _, dep := range deps(leaf) {
			if strings.HasPrefix(dep, module) && dep != module+leaf && dep != module+"/internal/secret" && dep != module+"/internal/replace" {
				t.Errorf("%s imports %s", leaf, dep)
			}
		}
	}
	all := deps("")
	if !slices.Contains(all, module+"/flow") {
		t.Fatal("the binary does not import flow: is the list read rightly?")
	}
	for _, dep := range all {
		if strings.HasPrefix(dep, "k8s.io/client-go/kubernetes") || strings.HasPrefix(dep, "k8s.io/api/") || strings.HasPrefix(dep, module+"/internal/issuer") {
			t.Errorf("%s reached the binary", dep)
		}
	}
}

// Every test that the threat model names must exist.
func TestThreatModelNamesTests(t *testing.T) {
	text, err := os.ReadFile("../../hack/docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources strings.Builder
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			var b []byte
			b, err = os.ReadFile(path)
			sources.Write(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+|[a-z0-9-]+\\.txtar)`").FindAllStringSubmatch(string(text), -1)
	if len(names) < 30 {
		t.Fatalf("it names %d tests", len(names))
	}
	for _, n := range names {
		if strings.HasSuffix(n[1], ".txtar") {
			if _, err := os.Stat(filepath.Join("testdata", "script", n[1])); err != nil {
				t.Error(err)
			}
		} else if !strings.Contains(sources.String(), "func "+n[1]+"(") {
			t.Errorf("there is no %s", n[1])
		}
	}
}

// Every field of the forms that other programs read is in their description.
func TestFormsAreDescribed(t *testing.T) {
	text, err := os.ReadFile("../../hack/docs/stewardship.md")
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	var walk func(prefix string, typ reflect.Type, dotted bool)
	walk = func(prefix string, typ reflect.Type, dotted bool) {
		for typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			full := prefix + name
			inner := f.Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if f.Type.Kind() == reflect.Slice {
				full += "[]"
			}
			if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() && inner != reflect.TypeFor[metav1.Duration]() {
				if !dotted {
					fields = append(fields, full)
					walk(".", inner, false)
				} else {
					walk(full+".", inner, true)
				}
				continue
			}
			fields = append(fields, full)
		}
	}
	walk("", reflect.TypeFor[inventory](), false)
	walk("", reflect.TypeFor[auditRecord](), true)
	if len(fields) < 40 {
		t.Fatalf("found %d fields", len(fields))
	}
	described := func(where string, names []string) {
		for _, n := range names {
			if !strings.Contains(where, "`"+n+"`") {
				t.Errorf("%s is not described", n)
			}
		}
	}
	described(string(text), fields)
	// doctor's have names that others have too: its own section must have them.
	_, section, _ := strings.Cut(string(text), "\n## `doctor -o json`")
	section, _, _ = strings.Cut(section, "\n## ")
	table, codes, _ := strings.Cut(section, "\n| code |")
	fields = nil
	walk("", reflect.TypeFor[diagnosis](), false)
	if len(fields) < 15 {
		t.Fatalf("found %d fields of doctor", len(fields))
	}
	described(table, append(fields, "Diagnosis", stateOK, stateWarning, stateWrong, stateSkipped))
	states := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([a-z]+) \\| .+ \\|$").FindAllStringSubmatch(codes, -1) {
		states[m[1]] = m[2]
	}
	for code, state := range findings {
		if states[code] != state {
			t.Errorf("the finding %s, which is %s, is described as %q", code, state, states[code])
		}
	}
	for code := range states {
		if findings[code] == "" {
			t.Errorf("the finding %s is described, and is none", code)
		}
	}
	// The example of a policy has every field, and makes sense.
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	var p policy
	if err := yaml.UnmarshalStrict([]byte(example), &p); err != nil || p.check() != nil {
		t.Fatalf("the example: %v, %v", err, p.check())
	}
	for i := range reflect.TypeFor[policy]().NumField() {
		f := reflect.TypeFor[policy]().Field(i)
		if f.IsExported() && reflect.ValueOf(p).Field(i).IsZero() {
			t.Errorf("the example does not set %s", f.Name)
		}
	}
	for _, code := range []string{problemOrphaned, problemExpired, problemTooOld, problemBroad, problemUntrusted, problemUnreadable} {
		if !strings.Contains(string(text), "`"+code+"`") {
			t.Errorf("the problem %s is not described", code)
		}
	}
	for _, action := range []string{loginStart, loginApproved, loginDenied, loginExpired, loginFailed, tokenRenewed, renewalRefused, tokenRefused, sessionRevoked, sessionDeleted} {
		if !strings.Contains(string(text), "`"+action+"`") {
			t.Errorf("the action %s is not described", action)
		}
	}
}
