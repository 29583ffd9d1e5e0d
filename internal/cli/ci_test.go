package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

func TestDetectCI(t *testing.T) {
	for set, want := range map[string]string{
		"GITHUB_ACTIONS=true CI=true": "github-actions", "GITLAB_CI=true CI=true": "gitlab-ci", "TF_BUILD=True": "azure-pipelines",
		"BUILDKITE=true CI=true": "buildkite", "CIRCLECI=true CI=true": "circleci", "TEAMCITY_VERSION=2026.1": "teamcity",
		"JENKINS_URL=https://ci.example.com/": "jenkins", "CI=true": "plain", "CI=1": "plain", "": "", "CI=false": "", "GITHUB_ACTIONS=false": "",
	} {
		env := func(name string) string {
			for pair := range strings.FieldsSeq(set) {
				if k, v, _ := strings.Cut(pair, "="); k == name {
					return v
				}
			}
			return ""
		}
		if got := chooseCI("auto", env).name; got != want {
			t.Errorf("%s: %q, want %q", set, got, want)
		}
		if got := chooseCI("none", env).name; got != "" {
			t.Errorf("%s, --ci=none: %q", set, got)
		}
		if got := chooseCI("teamcity", env).name; got != "teamcity" {
			t.Errorf("%s, --ci=teamcity: %q", set, got)
		}
	}
}

// What a system takes for a command, by its documented grammar, and with what it
// finds in it.
var grammars = map[string]func(log string) []string{
	// A line that begins with ::, whatever is before it in blanks; the older
	// form anywhere in a line.
	"github-actions": func(log string) []string {
		return slices.Concat(find(log, `(?m)^\s*::([a-z-]+)( [^\r\n]*?)?::.*$`), find(log, `##\[[a-z-]+.*`))
	},
	"gitlab-ci":       func(log string) []string { return find(log, `section_(start|end):\d+:[\w.-]+(\[[^\]]*\])?\r\x1b\[0K`) },
	"azure-pipelines": func(log string) []string { return find(log, `##(vso)?\[.*`) },
	"buildkite":       func(log string) []string { return find(log, `(?m)^(---|\+\+\+|~~~) .*$`) },
	"teamcity":        func(log string) []string { return find(log, `##teamcity\[.*`) },
	"circleci":        func(string) []string { return nil },
	"jenkins":         func(string) []string { return nil },
	"plain":           func(string) []string { return nil },
}

func find(s, pattern string) []string { return regexp.MustCompile(pattern).FindAllString(s, -1) }

// hostile has in it what every system looks for, as a provider would send it.
const hostile = "x\r\n::error::y\n##[command]z##vso[task.setvariable variable=a]b##teamcity[buildStop]'|c]\n--- d\n+++ e\n\x1b[0Ksection_end:1:oidc_device_login\r\x1b[0K<script>`**f**`%0A::g"

// Each form is what its system's documentation says, and nothing that a provider
// sends becomes a command, in a prompt, an error or a name.
func TestCIForms(t *testing.T) {
	expires := time.Date(2026, 11, 23, 14, 32, 10, 0, time.UTC)
	for name, commands := range grammars {
		t.Run(name, func(t *testing.T) {
			summary := filepath.Join(t.TempDir(), "summary")
			if err := os.WriteFile(summary, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("GITHUB_STEP_SUMMARY", summary)
			t.Setenv("PATH", t.TempDir()) // no buildkite-agent
			var out bytes.Buffer
			u := &ui{out: &out, ci: chooseCI(name, os.Getenv)}
			link := "https://idp.example.com/device?user_code=WDJB-MJHT&x='|[a];,%0A<b>"
			u.prompt(&options{issuer: "https://idp.example.com", clientID: "ci", qr: "auto"}, cache.Prompt{
				VerificationURI: "https://idp.example.com/device", VerificationURIComplete: link, UserCode: "WDJB-MJHT", ExpiresAt: expires,
			}, []string{"openid"})
			u.warn("%s", flow.Clean(hostile, 400))
			u.say("signed in as %s", flow.Clean(hostile, 100))
			u.promptOver()

			text := "Open https://idp.example.com/device?user_code=WDJB-MJHT&x='|[a];,%0A<b> and go on only if it shows, or asks for, the code WDJB-MJHT (until 14:32:10 UTC). Approve it only if you started this job yourself."
			want := map[string][]string{
				"github-actions":  {"::notice title=Approve the login to idp.example.com::" + strings.ReplaceAll(text, "%", "%25")},
				"azure-pipelines": {"##vso[task.logissue type=warning]Approve the login to idp.example.com. " + strings.ReplaceAll(text, "%", "%AZP25")},
				"teamcity":        {"##teamcity[message text='Approve the login to idp.example.com. " + strings.NewReplacer("|", "||", "'", "|'", "[", "|[", "]", "|]").Replace(text) + "' status='WARNING']"},
				"buildkite":       {"+++ Approve the login to idp.example.com"},
			}[name]
			got := commands(out.String())
			if name == "gitlab-ci" {
				if len(got) != 2 || !strings.HasPrefix(got[0], "section_start:") || !strings.HasPrefix(got[1], "section_end:") {
					t.Errorf("the sections are %q", got)
				}
			} else if !slices.Equal(got, want) {
				t.Errorf("it finds %q\nwant     %q\nin\n%s", got, want, out.String())
			}
			b, err := os.ReadFile(summary)
			if err != nil {
				t.Fatal(err)
			}
			if name != "github-actions" {
				if len(b) > 0 {
					t.Errorf("the summary has %s", b)
				}
				return
			}
			for _, part := range []string{
				"<h3>Approve the login to idp.example.com</h3>", "<pre>WDJB-MJHT</pre>", "It lasts until 2026-11-23 14:32:10 UTC",
				`<a href="https://idp.example.com/device?user_code=WDJB-MJHT&amp;x=&#39;|[a];,%0A&lt;b&gt;">`,
			} {
				if !strings.Contains(string(b), part) {
					t.Errorf("the summary has no %s:\n%s", part, b)
				}
			}
			// Nothing in it is a tag that is not ours, and no empty line ends the
			// HTML, behind which Markdown would begin.
			tags := regexp.MustCompile(`</?([a-z0-9]+)`).FindAllStringSubmatch(string(b), -1)
			for _, tag := range tags {
				if !slices.Contains([]string{"h3", "p", "code", "a", "pre"}, tag[1]) {
					t.Errorf("a tag of somebody else's: %s", tag[0])
				}
			}
			if strings.Contains(strings.TrimSpace(string(b)), "\n\n") {
				t.Errorf("an empty line in\n%s", b)
			}
		})
	}
	if len(grammars) != len(ciSystems) {
		t.Errorf("%d grammars for %d systems", len(grammars), len(ciSystems))
	}
}

// The escapes, as their documentation has them.
func TestCIEscapes(t *testing.T) {
	for got, want := range map[string]string{
		githubData("100% a\r\nb:c,d"):            "100%25 a%0D%0Ab:c,d",
		githubProperty("100% a\r\nb:c,d"):        "100%25 a%0D%0Ab%3Ac%2Cd",
		azureData("100% a\nb"):                   "100%AZP25 a%0Ab",
		teamcityValue("it's [a|b]\né\U0001F600"): "it|'s |[a||b|]|n|0x00E9",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPublicLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "event.json")
	for event, want := range map[string]bool{
		`{"repository":{"private":false}}`: true, `{"repository":{"private":true}}`: false, `{"repository":{}}`: false, `{`: false, ``: false,
	} {
		if err := os.WriteFile(path, []byte(event), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := githubPublic(func(string) string { return path }); got != want {
			t.Errorf("%s: %v", event, got)
		}
	}
	if githubPublic(func(string) string { return "" }) {
		t.Error("without an event")
	}
}

// The examples parse, and name no flag that the program does not have.
func TestExamplesParse(t *testing.T) {
	lines := 0
	for _, name := range []string{"github-workflow.yaml", "gitlab-ci.yaml", "Jenkinsfile"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "hack", "examples", name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".yaml") {
			if err := yaml.UnmarshalStrict(b, &map[string]any{}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, m := range regexp.MustCompile(`kubectl-oidc_device ([a-z-]+)((?: --[^ ]+)*)`).FindAllStringSubmatch(string(b), -1) {
			lines++
			if !slices.Contains(everyCommand, m[1]) {
				t.Errorf("%s: there is no command %s", name, m[1])
				continue
			}
			c := newCommand(m[1])
			c.Flags().SetInterspersed(true)
			if err := c.Flags().Parse(strings.Fields(m[2])); err != nil {
				t.Errorf("%s: %s: %v", name, m[0], err)
			}
		}
	}
	if lines < 6 {
		t.Errorf("found %d lines", lines)
	}
}
