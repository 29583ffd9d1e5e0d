package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfigLayouts are laid out as kubectl, clouds and people do it. Each has the
// users oidc and other, but for the first ones, and the context c.
var kubeconfigLayouts = map[string]string{
	"empty":         "",
	"comments only": "# nothing yet\n",
	"kubectl's empty one": "apiVersion: v1\nclusters: null\ncontexts:\n- context:\n    cluster: a\n    user: other\n  name: c\n" +
		"current-context: \"\"\nkind: Config\nusers: null\n",
	"an empty list": "apiVersion: v1\nkind: Config\nusers: []\ncontexts:\n- name: c\n  context:\n    cluster: a\n",
	"kubectl's": "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: QUJD\n    server: https://a\n  name: a\n" +
		"contexts:\n- context:\n    cluster: a\n    namespace: ns\n    user: other\n  name: c\n- context:\n    cluster: a\n    user: other\n  name: d\n" +
		"current-context: c\nkind: Config\nusers:\n- name: oidc\n  user:\n    token: t\n- name: other\n  user:\n    token: u\n",
	"indented, with comments": "# mine\napiVersion: v1\nkind: Config\nusers:\n    # first\n    - name: other   # o\n      user: {token: u}\n\n    # second\n" +
		"    - user:\n        exec:\n          apiVersion: client.authentication.k8s.io/v1\n          command: x\n          interactiveMode: Never\n      name: oidc\n" +
		"    # the end\n\ncontexts:   # all of them\n    - context: {cluster: a, user: other}\n      name: d\n    - name: c\n      context:\n        # who\n        user: other # o\n        cluster: a\n",
	"users in the middle":                "users:\n- name: other\n  user:\n    token: u\nkind: Config\ncontexts:\n- name: c\n  context:\n    cluster: a\napiVersion: v1\n",
	"contexts in braces":                 "apiVersion: v1\nkind: Config # k\ncontexts:\n- name: c\n  context: {cluster: a, user: other, namespace: ns} # c\nusers:\n- {name: other, user: {token: t}} # other\n",
	"a context in braces without a user": "apiVersion: v1\nkind: Config # k\ncontexts:\n- context: {cluster: a}\n  name: c\n",
	"CRLF":                               "apiVersion: v1\r\nkind: Config\r\ncontexts:\r\n- context:\r\n    cluster: a\r\n    user: other\r\n  name: c\r\nusers:\r\n- name: oidc\r\n  user:\r\n    token: t\r\n",
	"no end of line":                     "kind: Config\napiVersion: v1\ncontexts:\n- name: c\n  context:\n    user: \"other\"\nusers:\n- name: other\n  user:\n    token: u",
	"a text that looks like users": "apiVersion: v1\nkind: Config\npreferences: {}\nextensions:\n- name: e\n  extension: |\n    users:\n    - name: oidc\n" +
		"      user: nobody\nusers:\n- name: other\n  user:\n    username: |-\n      a\n      # no comment\n    password: p\ncontexts:\n- name: c\n  context:\n    user: other\n    cluster: |-\n      a\n",
	"JSON":    `{"apiVersion":"v1","kind":"Config","contexts":[{"name":"c","context":{"cluster":"a","user":"other"}}],"users":[{"name":"other","user":{"token":"u"}}]}`,
	"flow":    "{apiVersion: v1, kind: Config, contexts: [{name: c, context: {cluster: a}}], users: [{name: oidc, user: {token: u}}]}\n",
	"anchors": "apiVersion: v1\nkind: Config\nusers:\n- name: other\n  user: &u\n    token: u\n- name: oidc\n  user: *u\ncontexts:\n- name: c\n  context: &c {cluster: a, user: other}\n- name: d\n  context: *c\n",
}

func edits(context bool) kubeconfigEdit {
	e := kubeconfigEdit{user: "oidc", entry: tree{"exec": tree{
		"apiVersion": "client.authentication.k8s.io/v1", "command": "kubectl-oidc_device", "args": []string{"get-token", "--oidc-client-id=a: b"},
		"interactiveMode": "IfAvailable", "installHint": "# go", "env": []any{tree{"name": "N", "value": "on"}},
	}}}
	if context {
		e.context = "c"
	}
	return e
}

// What comes out is, to client-go, what client-go itself would have made.
func TestKubeconfigAsClientcmdWritesIt(t *testing.T) {
	for name, text := range kubeconfigLayouts {
		for _, bind := range []bool{false, true} {
			if bind && !strings.Contains(text, "contexts") {
				continue
			}
			t.Run(name, func(t *testing.T) {
				got, _, err := edits(bind).apply([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				theirs := filepath.Join(t.TempDir(), "config")
				if err := os.WriteFile(theirs, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				access := clientcmd.NewDefaultPathOptions()
				access.LoadingRules.ExplicitPath = theirs
				config, err := access.GetStartingConfig()
				if err != nil {
					t.Fatal(err)
				}
				user := clientcmdapi.NewAuthInfo()
				user.Exec = &clientcmdapi.ExecConfig{
					APIVersion: "client.authentication.k8s.io/v1", Command: "kubectl-oidc_device", Args: []string{"get-token", "--oidc-client-id=a: b"},
					InteractiveMode: "IfAvailable", InstallHint: "# go", Env: []clientcmdapi.ExecEnvVar{{Name: "N", Value: "on"}},
				}
				config.AuthInfos["oidc"] = user
				if bind {
					config.Contexts["c"].AuthInfo = "oidc"
				}
				if err := clientcmd.ModifyConfig(access, *config, false); err != nil {
					t.Fatal(err)
				}
				if want := loadAgain(t, theirs); !reflect.DeepEqual(loadText(t, got), want) {
					t.Errorf("it loads as\n%+v\nbut clientcmd's as\n%+v\n%s", loadText(t, got), want, got)
				}
			})
		}
	}
}

func loadAgain(t *testing.T, path string) *clientcmdapi.Config {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return loadText(t, b)
}

func loadText(t *testing.T, text []byte) *clientcmdapi.Config {
	t.Helper()
	config, err := clientcmd.Load(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return config
}

// All lines but those of the entry and of the context's user stay, in their
// order, but where all is on one line or an
// alias stands for an entry.
func TestKubeconfigKeepsItsLines(t *testing.T) {
	for name, text := range kubeconfigLayouts {
		if text == "" || name == "JSON" || name == "flow" || name == "anchors" {
			continue
		}
		e := edits(strings.Contains(text, "contexts"))
		changed, exact, err := e.apply([]byte(text))
		if err != nil || !exact {
			t.Errorf("%s: %v, exact: %t", name, err, exact)
			continue
		}
		gone := 0
		for _, l := range difference(strings.SplitAfter(strings.TrimSuffix(text, "\n")+"\n", "\n"), strings.SplitAfter(string(changed), "\n")) {
			if l[0] != '-' {
				continue
			}
			// The entry of oidc is at most 6 lines long; an empty list and a
			// context's user are one each.
			if gone++; gone > 8 || strings.Contains(l, "#") && !strings.Contains(l, "user:") {
				t.Errorf("%s: lost %q in\n%s", name, l, changed)
			}
		}
		if again, _, err := e.apply(changed); err != nil || string(again) != string(changed) {
			t.Errorf("%s: done twice (%v), it is\n%s", name, err, again)
		}
		if strings.Contains(text, "\r\n") && strings.Count(string(changed), "\n") != strings.Count(string(changed), "\r\n") {
			t.Errorf("%s: mixed line ends\n%q", name, changed)
		}
	}
}

// What several documents hold would be lost.
func TestKubeconfigOfSeveralDocuments(t *testing.T) {
	text := "{apiVersion: v1, kind: Config}\n---\nusers:\n- name: other\n  user: {token: t}\n"
	if changed, _, err := edits(false).apply([]byte(text)); err == nil {
		t.Errorf("changed to\n%s", changed)
	}
}

// Whatever the layout: nothing but the entry and the context's user changes,
// and what client-go could load it can load still.
func FuzzKubeconfigEdit(f *testing.F) {
	f.Fuzz(func(t *testing.T, text, context string) {
		e := edits(false)
		e.context = context
		changed, exact, err := e.apply([]byte(text))
		if err != nil {
			return
		}
		before, err := parseTree([]byte(text))
		if err != nil {
			t.Fatal("changed what is no kubeconfig")
		}
		after, err := parseTree(changed)
		if err != nil {
			t.Fatalf("made no kubeconfig of it: %q", changed)
		}
		if len(before) > 0 {
			for key := range before {
				if key != "users" && key != "contexts" && !reflect.DeepEqual(before[key], after[key]) && !strings.Contains(text, "!!") {
					t.Errorf("%s was %v, is %v (exact: %t)", key, before[key], after[key], exact)
				}
			}
		}
		if item, err := findNamed(after, "users", "oidc"); err != nil || item == nil || execOf(item) == nil {
			t.Errorf("there is no user in %q", changed)
		}
		was, err := clientcmd.Load([]byte(text))
		if err != nil {
			return
		}
		is, err := clientcmd.Load(changed)
		if err != nil {
			t.Fatalf("client-go does not read it any more: %v\n%q", err, changed)
		}
		delete(was.AuthInfos, "oidc")
		delete(is.AuthInfos, "oidc")
		delete(was.Contexts, context)
		delete(is.Contexts, context)
		if !reflect.DeepEqual(was, is) {
			t.Errorf("was %+v\nis  %+v", was, is)
		}
	})
}

// The file that is changed is the one that client-go would change.
func TestKubeconfigFileAsClientcmdChoosesIt(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	there := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("kind: Config\napiVersion: v1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b, missing, missingToo := there("a"), there("b"), filepath.Join(dir, "missing"), filepath.Join(dir, "missing-too")
	for _, list := range [][]string{{a}, {missing}, {a, b}, {missing, b}, {missing, missingToo}, {missing, missing, missingToo}, {b, missing, a}} {
		t.Setenv("KUBECONFIG", strings.Join(list, string(os.PathListSeparator)))
		s := &setup{options: &options{}, user: "oidc"}
		files, err := s.readKubeconfigs()
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.plan(files, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := clientcmd.NewDefaultPathOptions().GetDefaultFilename(); p.file != want {
			t.Errorf("of %q it is %s, and clientcmd's is %s", list, p.file, want)
		}
	}
}

// No part of an entry that may be a secret is shown.
func TestShownEntryHoldsNoSecret(t *testing.T) {
	const secret = "s3cr3t"
	item := tree{"name": "x", "user": tree{
		"token": secret, "password": secret, "client-key-data": secret, "auth-provider": tree{"config": tree{"id-token": secret}}, "future": secret,
		"exec": tree{"command": "kubelogin", "future": secret, "env": []any{tree{"name": "N", "value": secret}}, "args": []any{
			"get-token", "--oidc-client-id=shown", "--oidc-client-secret=" + secret, "--oidc-client-secret", secret, "--password=" + secret, "-p" + secret, secret,
		}},
	}}
	text := strings.Join(shown(item), "\n")
	if strings.Contains(text, secret) || !strings.Contains(text, "--oidc-client-id=shown") || !strings.Contains(text, "token: REDACTED") {
		t.Error(text)
	}
}

func TestDifference(t *testing.T) {
	got := strings.Join(difference(strings.Fields("a b c d"), strings.Fields("a x c d e")), "|")
	if want := " a|-b|+x| c| d|+e"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
