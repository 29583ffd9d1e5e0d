package cli_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/internal/cli"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// logVariable names a folder in which the program under test keeps a copy of
// all that it writes, for the search for secrets at a script's end.
const logVariable = "TEST_OUTPUT_LOG"

func TestMain(m *testing.M) {
	// The tests run in CI as anywhere; the program that they start is told by
	// each of them where it runs. What CI must have installed, it must have.
	if !strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-oidc_device") {
		os.Setenv("TEST_IN_CI", os.Getenv("CI"))
		for _, name := range []string{"CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "BUILDKITE", "CIRCLECI", "TEAMCITY_VERSION", "JENKINS_URL"} {
			os.Unsetenv(name)
		}
	}
	testscript.Main(m, map[string]func(){"kubectl-oidc_device": program})
}

// program is main.go, with its output copied.
func program() {
	var stdout, stderr io.Writer = os.Stdout, os.Stderr
	if dir := os.Getenv(logVariable); dir != "" {
		stdout, stderr = io.MultiWriter(stdout, appendTo(dir, "stdout")), io.MultiWriter(stderr, appendTo(dir, "stderr"))
	}
	os.Exit(cli.Main(func(parent context.Context) context.Context {
		ctx, cancel := context.WithCancelCause(parent)
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		go func() { cancel(&cli.SignalError{Signal: <-signals}) }()
		return ctx
	}, os.Args[1:], stdout, stderr))
}

func appendTo(dir, name string) io.Writer {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	return f
}

// hideLines are the one exception from no token on stderr: GitHub's runner is
// told which token to hide.
var hideLines = regexp.MustCompile(`(?m)^::add-mask::[-\w.]+\n`)

type issuerKey struct{}

// TestScripts runs the real program against a provider of its own for each
// script: $ISSUER is its URL, $SESSION the flags that name the session, which
// is kept in $CACHE.
//
//	issuer set FIELD VALUE         change a field of issuer.Behaviour
//	issuer start SHAPE             another provider, of another shape
//	issuer fault ENDPOINT TIMES KIND [ARGUMENT…]
//	issuer clear ENDPOINT          take its faults away
//	issuer count ENDPOINT N        fail unless it has seen N requests since the last reset
//	issuer reset                   begin to count anew
//	issuer copy-refresh-token      remember the refresh token that is live
//	issuer is-revoked              fail unless that one is revoked
//	status N [!] …                 in place of exec: wants the exit status N
//	kubeconfig FILE NAME [ARGUMENT…]
//	                               a kubeconfig whose context and user NAME run
//	                               get-token with these arguments
//	expand FILE                    put $ISSUER and its like into a file
//
// Each script ends with a search for every secret of its providers in all that
// the program wrote to stderr, and to stdout except for the tokens asked for.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			p := &provider{counted: map[string]int{}, logs: filepath.Join(env.WorkDir, ".log"), work: env.WorkDir}
			if err := os.Mkdir(p.logs, 0o700); err != nil {
				return err
			}
			env.Values[issuerKey{}] = p
			env.Defer(func() { p.end(env.T()) })
			env.Setenv(logVariable, p.logs)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "xdg"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("TRAIL", filepath.Join(env.WorkDir, "state", "kubectl-oidc_device", "audit.jsonl"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("CACHE", filepath.Join(env.WorkDir, "xdg", "kubectl-oidc_device"))
			return p.start(issuer.Options{}, env.Setenv)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"issuer": issuerCommand, "status": statusCommand, "kubeconfig": kubeconfigCommand, "expand": expandCommand},
	})
}

type provider struct {
	*issuer.Issuer
	all     []*issuer.Issuer
	counted map[string]int
	copied  string
	logs    string
	work    string
}

func (p *provider) start(o issuer.Options, setenv func(string, string)) error {
	is, err := issuer.Start(o)
	if err != nil {
		return err
	}
	is.Set(func(b *issuer.Behaviour) {
		b.ApproveAfterPolls = 1
		b.DeviceFields = map[string]any{"interval": 0.05}
	})
	p.Issuer, p.all = is, append(p.all, is)
	setenv("ISSUER", is.URL())
	setenv("CA_PEM", strings.ReplaceAll(string(is.CAPEM()), "\n", "\\n"))
	setenv("SESSION", "--oidc-issuer-url="+is.URL())
	setenv("OIDC_DEVICE_CLIENT_ID", "kubectl")
	return nil
}

func (p *provider) end(t testscript.T) {
	stdout, _ := os.ReadFile(filepath.Join(p.logs, "stdout")) // not there: nothing was written
	stderr, _ := os.ReadFile(filepath.Join(p.logs, "stderr"))
	// All that was written outside the storages is no place for secrets either.
	err := filepath.WalkDir(p.work, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.Contains(path, "/xdg/"), strings.Contains(path, "/.log/"), !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if strings.HasSuffix(path, ".jsonl") {
			stderr = append(stderr, b...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stderr = hideLines.ReplaceAll(stderr, nil)
	for _, is := range p.all {
		for _, secret := range is.Sentinels() {
			if strings.Contains(string(stderr), secret) {
				t.Fatal("a secret is on stderr: " + secret)
			}
			asked := strings.HasPrefix(secret, "eyJ") || strings.HasPrefix(secret, "access-") || !strings.Contains(secret, "SENTINEL")
			if !asked && strings.Contains(string(stdout), secret) {
				t.Fatal("a secret is on stdout: " + secret)
			}
		}
		is.Close()
	}
}

func issuerCommand(ts *testscript.TestScript, neg bool, args []string) {
	p := ts.Value(issuerKey{}).(*provider)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: see TestScripts")
	}
	switch verb, args := args[0], args[1:]; verb {
	case "set":
		set(ts, p, args[0], args[1])
	case "start":
		ts.Check(p.start(issuer.Options{Shape: args[0], TLS: len(args) > 1 && args[1] == "tls"}, ts.Setenv))
		ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), p.CAPEM(), 0o600))
	case "fault":
		times, err := strconv.Atoi(args[1])
		ts.Check(err)
		p.Fault(args[0], times, faultOf(ts, args[2:]))
	case "clear":
		p.Fault(args[0], 0, nil)
	case "count":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		if got := p.Count(args[0]) - p.counted[args[0]]; got != n {
			ts.Fatalf("%d requests to %s, want %d", got, args[0], n)
		}
	case "reset":
		for _, e := range []string{"discovery", "jwks", "device", "token", "revoke", "poll", "refresh", "other"} {
			p.counted[e] = p.Count(e)
		}
	case "rotate-key":
		p.RotateKey(false)
	case "copy-refresh-token":
		live := p.RefreshTokens()
		if len(live) == 0 {
			ts.Fatalf("there is no live refresh token")
		}
		p.copied = live[len(live)-1]
	case "is-revoked":
		if !p.Revoked(p.copied) {
			ts.Fatalf("the refresh token is not revoked")
		}
	case "is-live":
		if p.Revoked(p.copied) {
			ts.Fatalf("the refresh token is revoked")
		}
	case "close":
		p.Close()
	default:
		ts.Fatalf("issuer %s: no such thing", verb)
	}
}

func faultOf(ts *testscript.TestScript, args []string) issuer.Fault {
	switch args[0] {
	case "drop":
		return issuer.Drop
	case "hang":
		return issuer.Hang
	case "html":
		return issuer.Answer(200, "text/html", "<html>log in to the proxy</html>")
	case "large":
		return issuer.Answer(200, "application/json", `"`+strings.Repeat("x", 3<<20)+`"`)
	case "error":
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		return issuer.Error(status, args[2], strings.Join(args[3:], " "))
	case "status":
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		return issuer.Answer(status, "text/plain", "")
	}
	ts.Fatalf("no such fault: %s", args[0])
	return nil
}

// set changes a field by its name: text, number, truth, duration, list.
func set(ts *testscript.TestScript, p *provider, field, value string) {
	p.Set(func(b *issuer.Behaviour) {
		f := reflect.ValueOf(b).Elem().FieldByName(field)
		switch {
		case !f.IsValid():
			ts.Fatalf("issuer.Behaviour has no field %s", field)
		case f.Type() == reflect.TypeFor[time.Duration]():
			d, err := time.ParseDuration(value)
			ts.Check(err)
			f.SetInt(int64(d))
		case f.Kind() == reflect.String:
			f.SetString(value)
		case f.Kind() == reflect.Bool:
			f.SetBool(value == "true")
		case f.Kind() == reflect.Int:
			n, err := strconv.Atoi(value)
			ts.Check(err)
			f.SetInt(int64(n))
		case f.Type() == reflect.TypeFor[[]string]() && value == "":
			f.SetZero()
		case f.Type() == reflect.TypeFor[[]string]():
			f.Set(reflect.ValueOf(strings.Split(value, ",")))
		case f.Type() == reflect.TypeFor[map[string]any]():
			m := map[string]any{}
			for pair := range strings.SplitSeq(value, ",") {
				k, v, _ := strings.Cut(pair, "=")
				if m[k] = v; v == "" {
					m[k] = nil
				}
			}
			if field == "DeviceFields" && m["interval"] == nil {
				m["interval"] = 0.05
			}
			f.Set(reflect.ValueOf(m))
		default:
			ts.Fatalf("field %s is of a kind that the script cannot set", field)
		}
	})
}

// statusCommand runs the program, which must end with a certain status.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N argument…")
	}
	err := ts.Exec("kubectl-oidc_device", args[1:]...)
	status := 0
	if err != nil {
		if _, serr := fmt.Sscanf(err.Error(), "exit status %d", &status); serr != nil {
			ts.Fatalf("%v", err)
		}
	}
	if fmt.Sprint(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

// kubeconfigCommand adds a context and its user to a kubeconfig.
func kubeconfigCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: kubeconfig FILE NAME argument…")
	}
	type object = map[string]any
	config := object{"apiVersion": "v1", "kind": "Config", "contexts": []any{}, "users": []any{}}
	path := ts.MkAbs(args[0])
	if b, err := os.ReadFile(path); err == nil {
		ts.Check(yaml.Unmarshal(b, &config))
	}
	name := args[1]
	config["contexts"] = append(config["contexts"].([]any), object{"name": name, "context": object{"cluster": "none", "user": name}})
	config["users"] = append(config["users"].([]any), object{"name": name, "user": object{"exec": object{
		"apiVersion": "client.authentication.k8s.io/v1", "command": "kubectl-oidc_device", "interactiveMode": "IfAvailable",
		"args": append([]string{"get-token"}, args[2:]...),
		"env":  []object{{"name": "OIDC_DEVICE_CLIENT_ID", "value": "kubectl"}},
	}}})
	b, err := yaml.Marshal(config)
	ts.Check(err)
	ts.Check(os.WriteFile(path, b, 0o600))
}

// expandCommand puts the variables of the script into a file.
func expandCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: expand FILE")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
