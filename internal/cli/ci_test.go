package cli

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// command is what a system finds in a log, its values unescaped.
type command struct{ name, properties, data string }

// The parsers take more for a command than the systems do: any name, known or
// not.
var parsers = map[string]func(log string) []command{
	"github-actions": parseGitHub, "azure-pipelines": parseAzure, "teamcity": parseTeamCity,
	"gitlab-ci": parseGitLab, "buildkite": parseBuildkite,
}

// parseGitHub: a line that begins with ::, after white space, or has ##[ in it.
// https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
func parseGitHub(log string) (found []command) {
	data := strings.NewReplacer("%0D", "\r", "%0A", "\n", "%25", "%")
	property := strings.NewReplacer("%0D", "\r", "%0A", "\n", "%3A", ":", "%2C", ",", "%25", "%")
	for _, line := range regexp.MustCompile(`\r\n|\r|\n`).Split(log, -1) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "::"); ok {
			info, text, closed := strings.Cut(rest, "::")
			if !closed {
				info, text = rest, ""
			}
			name, properties, _ := strings.Cut(info, " ")
			found = append(found, command{name, property.Replace(properties), data.Replace(text)})
		} else if _, rest, ok := strings.Cut(line, "##["); ok {
			found = append(found, command{name: "##[", data: rest})
		}
	}
	return found
}

// parseAzure: ##vso[ and ##[ wherever they stand.
// https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
func parseAzure(log string) (found []command) {
	unescape := strings.NewReplacer("%3B", ";", "%0D", "\r", "%0A", "\n", "%5D", "]", "%AZP25", "%")
	for _, line := range regexp.MustCompile(`\r\n|\r|\n`).Split(log, -1) {
		if _, rest, ok := strings.Cut(line, "##vso["); ok {
			info, text, _ := strings.Cut(rest, "]")
			name, properties, _ := strings.Cut(info, " ")
			found = append(found, command{name, unescape.Replace(properties), unescape.Replace(text)})
		} else if _, rest, ok := strings.Cut(line, "##["); ok {
			found = append(found, command{name: "##[", data: rest})
		}
	}
	return found
}

// parseTeamCity: ##teamcity[name key='value'…], with | before what is special.
// https://www.jetbrains.com/help/teamcity/service-messages.html
func parseTeamCity(log string) (found []command) {
	whole := regexp.MustCompile(`^(\w+)((?: \w+='(?:[^|'\[\]\r\n]|\|[nr|'\[\]]|\|0x[0-9A-F]{4})*')*)\]$`)
	escape := regexp.MustCompile(`\|(?:0x([0-9A-F]{4})|(.))`)
	for line := range strings.SplitSeq(log, "\n") {
		_, rest, ok := strings.Cut(line, "##teamcity[")
		if !ok {
			continue
		}
		m := whole.FindStringSubmatch(rest)
		if m == nil {
			found = append(found, command{name: "malformed", data: rest})
			continue
		}
		text := escape.ReplaceAllStringFunc(m[2], func(e string) string {
			var r rune
			if n, _ := fmt.Sscanf(e, "|0x%X", &r); n == 1 {
				return string(r)
			}
			return map[string]string{"|n": "\n", "|r": "\r"}[e] + strings.Trim(e[1:], "nr")
		})
		found = append(found, command{m[1], "", strings.TrimSpace(text)})
	}
	return found
}

// parseGitLab: section markers wherever they stand, and any other escape
// sequence. https://docs.gitlab.com/ci/jobs/job_logs/
func parseGitLab(log string) (found []command) {
	marker := regexp.MustCompile("(?:\x1b\\[0K)?section_(start|end):\\d+:([a-zA-Z0-9_.-]+)(?:\\[.*?\\])?\r\x1b\\[0K([^\n]*)")
	for _, m := range marker.FindAllStringSubmatch(log, -1) {
		found = append(found, command{m[1], m[2], m[3]})
	}
	if rest := marker.ReplaceAllString(log, ""); strings.ContainsAny(rest, "\x1b\r") {
		found = append(found, command{name: "escape"})
	}
	return found
}

// parseBuildkite: headers of groups.
// https://buildkite.com/docs/pipelines/configure/managing-log-output
func parseBuildkite(log string) (found []command) {
	for _, m := range regexp.MustCompile(`(?m)^(---|\+\+\+|~~~|\^\^\^) (.*)$`).FindAllStringSubmatch(log, -1) {
		found = append(found, command{name: m[1], data: m[2]})
	}
	return found
}

// hostile are texts of a provider that would like to be commands.
var hostile = []string{
	"::set-env name=X::y",
	"\n::error::x\r::error::x\r\n ::add-path::/evil",
	"\u2028::error::x\u0085::error::x\v::error::x",
	"##[add-mask]x ###[error]x #\u200b#[error]x",
	"##vso[task.setvariable variable=PATH]x",
	"#\x00#vso[task.complete result=Succeeded;]",
	"x'] ##teamcity[buildStop comment='x'] |'| |n",
	"\x1b[0Ksection_start:1:x\r\x1b[0Kx",
	"\n--- x\n+++ x\n~~~ x\n^^^ +++",
	"%0A::error::x%0D%3A%3A %250A %AZP25",
	"</code></pre><script>alert(1)</script>",
	"[a](javascript:x) ![b](//evil) `c` ``` \n# d\n<https://evil> www.evil.com @all",
	"&lt;b&gt;&#10;::error::x",
}

// job sets the variables of one system, or of none, for Main.
func job(t *testing.T, system string) {
	t.Helper()
	for _, c := range ciSystems {
		value := ""
		if c.name == system {
			if value = c.value; value == "" {
				value = "true"
			}
		}
		t.Setenv(c.variable, value)
	}
	t.Setenv("GITHUB_STEP_SUMMARY", "")
	t.Setenv("GITHUB_EVENT_PATH", "")
	t.Setenv("CI_PROJECT_VISIBILITY", "")
	t.Setenv("BUILDKITE_JOB_ID", "job-1")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

func startIssuer(t *testing.T) *issuer.Issuer {
	t.Helper()
	is, err := issuer.Start(issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(is.Close)
	is.Set(func(b *issuer.Behaviour) {
		b.ApproveAfterPolls = 1
		b.DeviceFields = map[string]any{"interval": 0.05}
	})
	return is
}

// getToken runs the program, with both streams in one log.
func getToken(is *issuer.Issuer, flags ...string) (log string, status int) {
	var out bytes.Buffer
	status = Main(func(ctx context.Context) context.Context { return ctx }, append([]string{"get-token", "--output=token",
		"--oidc-issuer-url=" + is.URL(), "--oidc-client-id=kubectl", "--token-cache-storage=none", "--audit-log=none"}, flags...), &out, &out)
	return out.String(), status
}

const hostileLink = "https://idp.example.com/?a='|]&b=%0A%3A%3A&c=%AZP25&d=<b>\"`*_[x](y)&e=::x;,]#section_end:1:x"

// Whatever a provider sends, a system finds our commands in the log, and no
// other.
func TestCINoCommandOfTheProvider(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the programs that it runs are for sh")
	}
	bin := t.TempDir()
	program := func(name, script string) string {
		path := filepath.Join(bin, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	annotations := filepath.Join(bin, "annotations")
	program("buildkite-agent", `echo "$*" >>`+annotations+`; tee -a `+annotations)
	chat := program("chat", `printf '%s\n%s\n' "$OIDC_DEVICE_PROMPT_CODE" "$OIDC_DEVICE_PROMPT_LINK"`)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, system := range []string{"", "github-actions", "gitlab-ci", "azure-pipelines", "buildkite", "teamcity"} {
		for n, text := range hostile {
			t.Run(fmt.Sprintf("%s/%d", system, n), func(t *testing.T) {
				job(t, system)
				summary := filepath.Join(t.TempDir(), "summary")
				t.Setenv("GITHUB_STEP_SUMMARY", summary)
				os.Remove(annotations)
				is := startIssuer(t)
				code := flow.Clean(text, 100)
				is.Set(func(b *issuer.Behaviour) {
					b.DeviceFields["user_code"] = code // one that is not clean is refused, see hostile.txtar
					b.DeviceFields["verification_uri_complete"] = hostileLink
					b.ExtraClaims = map[string]any{"name": text, "preferred_username": text, "email": text, "sub": "s" + text, "aud": []string{"kubectl", text}, "azp": "kubectl"}
					b.ScopesGranted = "openid " + text
				})
				log, status := getToken(is, "-v", "--prompt-command="+chat)
				if status != 0 {
					t.Fatalf("exit status %d\n%s", status, log)
				}
				token := regexp.MustCompile(`(?m)^eyJ.*$`).FindString(log)
				for parser, parse := range parsers {
					got := parse(log)
					var want []command
					if parser == system {
						want = expected(system, strings.TrimPrefix(is.URL(), "http://"), code, token, log)
					}
					if !slices.Equal(got, want) {
						t.Errorf("%s finds\n%q, want\n%q in\n%s", parser, got, want, log)
					}
				}
				for line := range strings.Lines(log) {
					ours := strings.HasPrefix(line, strings.TrimRight(prefix, " "))
					for _, begin := range forms[system] {
						ours = ours || strings.HasPrefix(line, begin)
					}
					control := strings.IndexFunc(strings.TrimSuffix(line, "\n"), unicode.IsControl) >= 0
					if !ours && line != token+"\n" || control && system != "gitlab-ci" {
						t.Errorf("a line that is none of ours: %q", line)
					}
				}
				switch system {
				case "github-actions":
					checkPage(t, summary, code)
				case "buildkite":
					checkPage(t, annotations, code)
				}
			})
		}
	}
}

// forms are the beginnings of the lines that are for a system.
var forms = map[string][]string{
	"github-actions": {"::notice ", "::add-mask::"}, "gitlab-ci": {"\x1b[0Ksection_"}, "buildkite": {"+++ Sign in"},
	"azure-pipelines": {"##vso[task."}, "teamcity": {"##teamcity[message "},
}

// expected are our commands. The texts that they must have are written out.
func expected(system, host, code, token, log string) []command {
	until := regexp.MustCompile(`It lasts until (\d\d:\d\d:\d\d UTC)\.`).FindString(log)
	text := "Open " + hostileLink + " in a browser, on any device, and go on only if it shows the code " + code +
		". " + until + " Approve it only if you started this job yourself."
	switch system {
	case "github-actions":
		return []command{{"notice", "title=Sign in to " + host, text}, {"add-mask", "", token}}
	case "azure-pipelines":
		return []command{{"task.logissue", "type=warning", "Sign in to " + host + ". " + text}}
	case "teamcity":
		return []command{{"message", "", "text='Sign in to " + host + ". " + text + "' status='WARNING'"}}
	case "gitlab-ci":
		name := fmt.Sprintf("oidc_device_%d", os.Getpid())
		return []command{{"start", name, "Sign in to " + host}, {"end", name, ""}}
	case "buildkite":
		return []command{{"+++", "", "Sign in to " + host}}
	}
	return nil
}

// checkPage wants Markdown whose every text that is not ours is of letters,
// digits, spaces and entities.
func checkPage(t *testing.T, path, code string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := regexp.MustCompile(`(?m)^annotate .*\n`).ReplaceAllString(string(b), "")
	const slot = `((?:[\pL\pN ]|&#\d+;)*)`
	m := regexp.MustCompile(`^### ` + slot + `\n\nOpen <a href="` + slot + `">` + slot + `</a> in a browser, on any device, and go on only if it shows this code:\n\n` +
		`<pre><code>` + slot + `</code></pre>\n\nThe code lasts until [-0-9: ]+ UTC\. Approve it only if you started this job yourself\.\n\n` +
		`The login was approved; its code is used up\.\n\n$`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("the page is\n%s", page)
	}
	if html.UnescapeString(m[2]) != hostileLink || html.UnescapeString(m[3]) != hostileLink || html.UnescapeString(m[4]) != code {
		t.Errorf("the page is\n%s", page)
	}
}

// Errors come from a provider too.
func TestCINoCommandInErrors(t *testing.T) {
	for _, text := range hostile {
		for name, set := range map[string]func(*issuer.Issuer){
			"denied":  func(is *issuer.Issuer) { is.Fault("poll", 1, issuer.Error(400, "access_denied", text)) },
			"unknown": func(is *issuer.Issuer) { is.Fault("poll", 1, issuer.Error(400, text, text)) },
			"busy":    func(is *issuer.Issuer) { is.Fault("poll", 1, issuer.Error(503, "server_error", text)) },
			"device":  func(is *issuer.Issuer) { is.Fault("device", 1, issuer.Error(400, text, text)) },
			"type":    func(is *issuer.Issuer) { is.Fault("device", 1, issuer.Answer(400, text, text)) },
			"issuer":  func(is *issuer.Issuer) { is.Set(func(b *issuer.Behaviour) { b.WrongIssuerInDiscovery = text }) },
			"link": func(is *issuer.Issuer) {
				is.Set(func(b *issuer.Behaviour) { b.DeviceFields["verification_uri"] = text })
			},
			"token type": func(is *issuer.Issuer) {
				is.Set(func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"token_type": text} })
			},
			"claims": func(is *issuer.Issuer) {
				is.Set(func(b *issuer.Behaviour) { b.ExtraClaims = map[string]any{"aud": text, "azp": text, "acr": text} })
			},
			"token": func(is *issuer.Issuer) {
				is.Set(func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"id_token": text} })
			},
			"endpoint": func(is *issuer.Issuer) {
				is.Set(func(b *issuer.Behaviour) { b.DiscoveryFields = map[string]any{"device_authorization_endpoint": text} })
			},
			"redirection": func(is *issuer.Issuer) {
				is.Fault("token", 1, issuer.Answer(302, "", "", "Location", "https://evil/"+text))
			},
		} {
			job(t, "ci")
			is := startIssuer(t)
			set(is)
			log, _ := getToken(is, "-v", "--required-acr=x", "--authentication-timeout=2s")
			for parser, parse := range parsers {
				if got := parse(log); got != nil {
					t.Errorf("%s, %q: %s finds %q in\n%s", name, text, parser, got, log)
				}
			}
			for line := range strings.Lines(log) {
				if !strings.HasPrefix(line, strings.TrimRight(prefix, " ")) {
					t.Errorf("%s, %q: a line that begins like none of ours: %q", name, text, line)
				}
			}
			is.Close()
		}
	}
}

// What each system shows, to the letter.
func TestCIForms(t *testing.T) {
	at := time.Unix(1700000000, 0)
	title, text := "Sign in to idp.example.com:8443", ciText("https://idp.example.com/d?c=A%20B", "A,B|é", true, at)
	for _, tt := range []struct{ system, before, notice, after, mask string }{
		{system: "github-actions",
			notice: "::notice title=Sign in to idp.example.com%3A8443::Open https://idp.example.com/d?c=A%2520B in a browser, on any device, and go on only if it shows the code A,B|é. It lasts until 22:13:20 UTC. Approve it only if you started this job yourself.\n",
			mask:   "::add-mask::eyJ.a_-b\n"},
		{system: "gitlab-ci",
			before: fmt.Sprintf("\x1b[0Ksection_start:1700000000:oidc_device_%d\r\x1b[0KSign in to idp.example.com:8443\n", os.Getpid()),
			after:  fmt.Sprintf("\x1b[0Ksection_end:1700000000:oidc_device_%d\r\x1b[0K\n", os.Getpid())},
		{system: "azure-pipelines",
			notice: "##vso[task.logissue type=warning]Sign in to idp.example.com:8443. Open https://idp.example.com/d?c=A%AZP2520B in a browser, on any device, and go on only if it shows the code A,B|é. It lasts until 22:13:20 UTC. Approve it only if you started this job yourself.\n",
		},
		{system: "buildkite", before: "+++ Sign in to idp.example.com:8443\n"},
		{system: "circleci"},
		{system: "teamcity",
			notice: "##teamcity[message text='Sign in to idp.example.com:8443. Open https://idp.example.com/d?c=A%20B in a browser, on any device, and go on only if it shows the code A,B|||0x00E9. It lasts until 22:13:20 UTC. Approve it only if you started this job yourself.' status='WARNING']\n"},
		{system: "jenkins"},
		{system: "ci"},
		{system: "plain"},
		{system: "none"},
	} {
		c := chooseCI(tt.system, func(string) string { return "" })
		if c.name != tt.system && tt.system != "none" && tt.system != "ci" {
			t.Errorf("--ci=%s is %q", tt.system, c.name)
		}
		var before, notice, after, mask string
		if c.before != nil {
			before = c.before(title, at)
		}
		if c.notice != nil {
			notice = c.notice(title, text)
		}
		if c.after != nil {
			after = c.after(at)
		}
		if c.mask != nil {
			mask = c.mask("eyJ.a_-b")
		}
		if before != tt.before || notice != tt.notice || after != tt.after || mask != tt.mask {
			t.Errorf("%s:\n%q\n%q\n%q\n%q", tt.system, before, notice, after, mask)
		}
	}
	want := `### Sign in to idp&#46;example&#46;com&#58;8443

Open <a href="https&#58;&#47;&#47;idp&#47;&#63;a&#61;&#34;">https&#58;&#47;&#47;idp&#47;&#63;a&#61;&#34;</a> in a browser, on any device, and enter this code:

<pre><code>A&#45;&#60;b&#62;&#96;é</code></pre>

The code lasts until 2023-11-14 22:13:20 UTC. Approve it only if you started this job yourself.

`
	if got := ciMarkdown(title, `https://idp/?a="`, "A-<b>`é", false, at); got != want {
		t.Errorf("the page is\n%s", got)
	}
	if got := teamcityValue("|'[]\n\r\u2028𝄞~"); got != "|||'|[|]|n|r|0x2028|0xD834|0xDD1E~" {
		t.Error(got)
	}
}

// A token goes to stderr only as a mask, only where a job runs, and before it
// goes to stdout.
func TestCIMask(t *testing.T) {
	is := startIssuer(t)
	for _, tt := range []struct {
		system, flag, want string
	}{
		{"github-actions", "auto", "::add-mask::"},
		{"github-actions", "github-actions", "::add-mask::"},
		{"github-actions", "none", ""},
		{"github-actions", "plain", ""},
		{"github-actions", "azure-pipelines", ""},
		{"azure-pipelines", "auto", ""},
		{"", "github-actions", ""},
		{"ci", "github-actions", ""},
		{"", "auto", ""},
		{"gitlab-ci", "auto", ""},
		{"teamcity", "auto", ""},
	} {
		for _, output := range []string{"token", "exec-credential"} {
			job(t, tt.system)
			log, status := getToken(is, "--ci="+tt.flag, "--output="+output)
			if status != 0 {
				t.Fatal(log)
			}
			token := regexp.MustCompile(`eyJ[-\w]+\.[-\w]+\.[-\w]+`).FindString(log)
			answer := "\n" + token + "\n"
			if output == "exec-credential" {
				answer = `"token":"` + token + `"`
			}
			wantCount := 1
			if tt.want != "" {
				wantCount = 2
				if mask := strings.Index(log, "\n"+tt.want+token+"\n"); mask < 0 || mask > strings.LastIndex(log, answer) {
					t.Errorf("%v: the mask does not come first:\n%s", tt, log)
				}
			}
			if got := strings.Count(log, token); got != wantCount {
				t.Errorf("%v: the token is there %d times", tt, got)
			}
		}
	}
	// Where stderr is a file, no runner reads it.
	job(t, "github-actions")
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	if status := Main(nil, []string{"get-token", "-o", "token", "--oidc-issuer-url=" + is.URL(), "--oidc-client-id=kubectl", "--token-cache-storage=none", "--audit-log=none"}, &out, f); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if b, err := os.ReadFile(f.Name()); err != nil || bytes.Contains(b, []byte("eyJ")) || !bytes.Contains(b, []byte("::notice ")) {
		t.Errorf("the file has %s", b)
	}
}

// Who may read the log is told, or that nothing tells it.
func TestCIPublicLog(t *testing.T) {
	const is, maybe = "warning: this log is public", "warning: this log may be public"
	provider := startIssuer(t)
	check := func(what, want string) {
		t.Helper()
		log, status := getToken(provider)
		if status != 0 || want != "" && strings.Count(log, want) != 1 || strings.Count(log, " public, ") != min(len(want), 1) {
			t.Errorf("%s: exit status %d, want %q:\n%s", what, status, want, log)
		}
	}
	for event, want := range map[string]string{
		`{"repository":{"private":false,"visibility":"public"}}`:  is,
		`{"repository":{"private":false}}`:                        is,
		`{"repository":{"private":true,"visibility":"private"}}`:  "",
		`{"repository":{"private":true,"visibility":"internal"}}`: "",
		`{"repository":{"private":true}}`:                         "",
		`{"repository":{}}`:                                       maybe,
		`{}`:                                                      maybe,
		`[]`:                                                      maybe,
		``:                                                        maybe,
	} {
		job(t, "github-actions")
		path := filepath.Join(t.TempDir(), "event.json")
		if err := os.WriteFile(path, []byte(event), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("GITHUB_EVENT_PATH", path)
		check(event, want)
	}
	for _, path := range []string{"", filepath.Join(t.TempDir(), "missing"), t.TempDir()} {
		job(t, "github-actions")
		t.Setenv("GITHUB_EVENT_PATH", path)
		check("GITHUB_EVENT_PATH="+path, maybe)
	}
	for visibility, want := range map[string]string{"public": is, "internal": "", "private": "", "": maybe} {
		job(t, "gitlab-ci")
		t.Setenv("CI_PROJECT_VISIBILITY", visibility)
		check("CI_PROJECT_VISIBILITY="+visibility, want)
	}
	job(t, "")
	check("no job", "")
}

// Some systems give their jobs a terminal: a line a minute all the same.
func TestCITerminal(t *testing.T) {
	for _, tt := range []struct{ system, flag, want string }{
		{"buildkite", "auto", "oidc-device: waiting for the approval, 5m0s left\n"},
		{"", "plain", "oidc-device: waiting for the approval, 5m0s left\n"},
		{"", "auto", "\roidc-device: waiting for the approval, 5m0s left \x1b[K"},
		{"buildkite", "none", "\roidc-device: waiting for the approval, 5m0s left \x1b[K"},
	} {
		job(t, tt.system)
		var out bytes.Buffer
		u := &ui{out: &out, screen: screen{terminal: true, inPlace: true}}
		newSession(&options{issuer: "https://a", clientID: "c", storage: "none", ci: tt.flag}, u)
		u.countdown(time.Now().Add(5 * time.Minute))
		if !u.inPlace {
			u.countdown(time.Now().Add(5 * time.Minute)) // less than a minute later
		}
		if out.String() != tt.want {
			t.Errorf("%v: %q", tt, out.String())
		}
	}
}
