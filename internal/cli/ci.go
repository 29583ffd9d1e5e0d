package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// ciSystem is a system that runs jobs, and the form in which it shows a prompt
// best. The forms come beside the plain lines, on stderr: stdout is the answer's.
// What a system has no form for is nil.
type ciSystem struct {
	name string
	// The variable that is set in each of its jobs, and its value; "" is any.
	variable, value string
	// Variables that name the job, and the run that it is part of.
	jobName, run string

	before func(ciPrompt) string                // a line before the plain ones
	after  func(ciPrompt) string                // a line after them
	end    func() string                        // a line when the login is over
	also   func(context.Context, *ui, ciPrompt) // what is more than a line
	// mask is the line that keeps a token out of the log. It goes to stderr, and
	// is for systems alone that surely read commands there: any other would show
	// it. Azure Pipelines and TeamCity document standard output.
	mask   func(token string) string
	public func(env func(string) string) bool // whether everybody can read the log
}

// ciPrompt is what is to be shown. Its texts have been through flow.Clean and
// flow.CheckURL.
type ciPrompt struct {
	host, clientID, link, code string
	expires                    time.Time
}

func (p ciPrompt) title() string { return "Approve the login to " + p.host }

func (p ciPrompt) text() string {
	return fmt.Sprintf("Open %s and go on only if it shows, or asks for, the code %s (until %s UTC). Approve it only if you started this job yourself.",
		p.link, p.code, p.expires.UTC().Format("15:04:05"))
}

// ciSystems are found in this order. Their variables and grammars are documented:
// docs.github.com/actions (workflow commands), docs.gitlab.com/ci/jobs/job_logs
// (sections), learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands,
// buildkite.com/docs (managing log output; agent annotate),
// jetbrains.com/help/teamcity/service-messages.html.
var ciSystems = []ciSystem{
	{
		name: "github-actions", variable: "GITHUB_ACTIONS", value: "true", jobName: "GITHUB_JOB", run: "GITHUB_RUN_ID",
		after: func(p ciPrompt) string {
			return "::notice title=" + githubProperty(p.title()) + "::" + githubData(p.text())
		},
		also: githubSummary, public: githubPublic,
		mask: func(token string) string { return "::add-mask::" + githubData(token) },
	},
	{
		name: "gitlab-ci", variable: "GITLAB_CI", value: "true", jobName: "CI_JOB_ID", run: "CI_PIPELINE_ID",
		before: func(p ciPrompt) string {
			return fmt.Sprintf("\x1b[0Ksection_start:%d:oidc_device_login\r\x1b[0K%s", time.Now().Unix(), p.title())
		},
		end: func() string {
			return fmt.Sprintf("\x1b[0Ksection_end:%d:oidc_device_login\r\x1b[0K", time.Now().Unix())
		},
		public: func(env func(string) string) bool { return env("CI_PROJECT_VISIBILITY") == "public" },
	},
	{
		name: "azure-pipelines", variable: "TF_BUILD", value: "True", jobName: "SYSTEM_JOBID", run: "BUILD_BUILDID",
		after: func(p ciPrompt) string {
			return "##vso[task.logissue type=warning]" + azureData(p.title()+". "+p.text())
		},
	},
	{
		name: "buildkite", variable: "BUILDKITE", value: "true", jobName: "BUILDKITE_JOB_ID", run: "BUILDKITE_BUILD_ID",
		before: func(p ciPrompt) string { return "+++ " + p.title() },
		also:   buildkiteAnnotation,
	},
	{name: "circleci", variable: "CIRCLECI", value: "true", jobName: "CIRCLE_JOB", run: "CIRCLE_WORKFLOW_ID"},
	{
		name: "teamcity", variable: "TEAMCITY_VERSION", jobName: "TEAMCITY_BUILDCONF_NAME", run: "BUILD_NUMBER",
		after: func(p ciPrompt) string {
			return "##teamcity[message text='" + teamcityValue(p.title()+". "+p.text()) + "' status='WARNING']"
		},
	},
	{name: "jenkins", variable: "JENKINS_URL", jobName: "JOB_NAME", run: "BUILD_ID"},
	{name: "plain", variable: "CI"}, // any other
}

// ciNames are the values of --ci.
func ciNames() []string {
	names := []string{"auto", "none"}
	for _, c := range ciSystems {
		names = append(names, c.name)
	}
	return names
}

// detectCI gives the zero ciSystem where no job runs.
func detectCI(env func(string) string) ciSystem {
	for _, c := range ciSystems {
		if v := env(c.variable); v != "" && v != "false" && (c.value == "" || v == c.value) {
			return c
		}
	}
	return ciSystem{}
}

// chooseCI follows --ci.
func chooseCI(want string, env func(string) string) ciSystem {
	for _, c := range ciSystems {
		if c.name == want {
			return c
		}
	}
	if want == "none" {
		return ciSystem{}
	}
	return detectCI(env)
}

// ciJob names a job in the audit log.
type ciJob struct {
	System string `json:"system"`
	Job    string `json:"job,omitempty"`
	Run    string `json:"run,omitempty"`
}

func (c ciSystem) job(env func(string) string) *ciJob {
	if c.name == "" {
		return nil
	}
	j := &ciJob{System: c.name}
	if c.jobName != "" {
		j.Job, j.Run = flow.Clean(env(c.jobName), 200), flow.Clean(env(c.run), 200)
	}
	return j
}

// The escapes of GitHub's workflow commands.
func githubData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func githubProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

func azureData(s string) string {
	return strings.NewReplacer("%", "%AZP25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func teamcityValue(s string) string {
	s = strings.NewReplacer("|", "||", "'", "|'", "\n", "|n", "\r", "|r", "[", "|[", "]", "|]").Replace(s)
	var b strings.Builder
	for _, r := range s {
		if r > '~' && r <= 0xffff {
			fmt.Fprintf(&b, "|0x%04X", r)
		} else if r <= '~' {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// markup is the prompt as HTML, which Markdown takes as it is: everything in it
// is escaped, and no empty line ends it.
func (p ciPrompt) markup() string {
	e := html.EscapeString
	return fmt.Sprintf("<h3>%s</h3>\n<p>Client <code>%s</code>. Open <a href=\"%s\">%s</a> and go on only if it shows, or asks for, this code:</p>\n<pre>%s</pre>\n<p>It lasts until %s UTC. Approve it only if you started this job yourself.</p>\n",
		e(p.title()), e(p.clientID), e(p.link), e(p.link), e(p.code), p.expires.UTC().Format("2006-01-02 15:04:05"))
}

// githubSummary appends to the job's summary, which is shown when the step ends:
// for whoever looks for the prompt afterwards.
func githubSummary(_ context.Context, u *ui, p ciPrompt) {
	path := os.Getenv("GITHUB_STEP_SUMMARY")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("\n" + p.markup() + "\n")
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		u.detail("the prompt is not in the job's summary: %v", err)
	}
}

// githubPublic reads the event that started the workflow: its payload says
// whether the repository is private.
func githubPublic(env func(string) string) bool {
	f, err := os.Open(env("GITHUB_EVENT_PATH"))
	if err != nil {
		return false
	}
	defer f.Close()
	var event struct {
		Repository struct{ Private *bool }
	}
	if json.NewDecoder(f).Decode(&event) != nil || event.Repository.Private == nil {
		return false
	}
	return !*event.Repository.Private
}

// buildkiteAnnotation shows the prompt on the build's page, where the agent is
// there to do it.
func buildkiteAnnotation(ctx context.Context, u *ui, p ciPrompt) {
	agent, err := exec.LookPath("buildkite-agent")
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	annotate := exec.CommandContext(ctx, agent, "annotate", "--style", "warning", "--context", "oidc-device-login")
	annotate.Stdin = strings.NewReader(p.markup())
	annotate.Stdout, annotate.Stderr = os.Stderr, os.Stderr
	annotate.Env = childEnvironment()
	if err := annotate.Run(); err != nil {
		u.detail("buildkite-agent annotate: %v", err)
	}
}

// childEnvironment is ours without the client secret.
func childEnvironment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, envName("oidc-client-secret")+"=") })
	return append(env, more...)
}

// runPromptCommand tells a person by other means: chat, mail. stop ends it with
// the login; that it fails is only a warning.
func (s *session) runPromptCommand(p cache.Prompt) (stop func()) {
	if s.promptCommand == "" {
		return func() {}
	}
	link := p.VerificationURIComplete
	if link == "" {
		link = p.VerificationURI
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, s.promptCommand)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr // stdout belongs to the answer
	c.WaitDelay = time.Second
	c.Env = childEnvironment("OIDC_DEVICE_PROMPT_LINK="+link, "OIDC_DEVICE_PROMPT_CODE="+p.UserCode,
		"OIDC_DEVICE_PROMPT_EXPIRES="+p.ExpiresAt.UTC().Format(time.RFC3339),
		"OIDC_DEVICE_PROMPT_ISSUER="+s.issuer, "OIDC_DEVICE_PROMPT_CLIENT_ID="+s.clientID)
	if err := c.Start(); err != nil {
		cancel()
		s.ui.warn("--prompt-command: %v", err)
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Wait(); err != nil && ctx.Err() == nil {
			s.ui.warn("--prompt-command: %v", err)
		}
	}()
	return func() { cancel(); <-done }
}

// maskToken keeps a token that goes to stdout out of the job's log, where the
// system has a way to do that: the runner takes the line out of the log. It is
// the one place where a token is written to stderr, and only where such a runner
// was found; kubectl, which runs the plugin itself, prints no token.
func (s *session) maskToken(e *cache.Entry) {
	found := detectCI(os.Getenv).name == s.ui.ci.name // not merely named by --ci
	if mask := s.ui.ci.mask; mask != nil && found && s.client == nil && !isTerminal(os.Stdout) {
		s.ui.raw(mask(e.Token.Reveal()))
	}
}
