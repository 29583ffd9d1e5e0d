package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// ciSystem is a system that runs jobs, by its documented variables, and what
// it has to show a prompt with. That comes beside the plain lines, on stderr.
// What a system does not have is nil.
type ciSystem struct {
	name string
	// found are the variable that is set in each of its jobs, and its value;
	// "" is any.
	variable, value string
	// Variables that name the job, and the run that it is part of.
	jobName, run string

	before func(title string, at time.Time) string // lines before the prompt
	notice func(title, text string) string         // lines after it
	after  func(at time.Time) string               // lines when the login has ended
	// page puts Markdown where a run's pages show it.
	page func(ctx context.Context, markdown string, state pageState, log io.Writer) error
	// mask makes the system hide a token in all that the job logs from now on.
	// It is for systems that surely read commands on stderr: Azure Pipelines
	// documents standard output, and where a task keeps the two apart it would
	// show the token that was to be hidden.
	mask func(token string) string
	// public says whether everybody may read the log, as the warning puts it:
	// "is public", "may be public" where nothing tells, "" for no.
	public func(env func(string) string) string
}

// pageState is a login's state on a page.
type pageState int

const (
	pageWaiting pageState = iota
	pageApproved
	pageFailed
)

var ciSystems = []ciSystem{
	{
		name: "github-actions", variable: "GITHUB_ACTIONS", value: "true", jobName: "GITHUB_JOB", run: "GITHUB_RUN_ID",
		notice: func(title, text string) string {
			return "::notice title=" + githubProperty(title) + "::" + githubData(text) + "\n"
		},
		page:   githubSummary,
		mask:   func(token string) string { return "::add-mask::" + githubData(token) + "\n" },
		public: githubPublic,
	},
	{
		name: "gitlab-ci", variable: "GITLAB_CI", value: "true", jobName: "CI_JOB_ID", run: "CI_PIPELINE_ID",
		before: func(title string, at time.Time) string {
			return gitlabMarker("start", at) + flow.Clean(title, 200) + "\n"
		},
		after:  func(at time.Time) string { return gitlabMarker("end", at) + "\n" },
		public: gitlabPublic,
	},
	{
		name: "azure-pipelines", variable: "TF_BUILD", value: "True", jobName: "SYSTEM_JOBID", run: "BUILD_BUILDID",
		notice: func(title, text string) string {
			return "##vso[task.logissue type=warning]" + azureData(title+". "+text) + "\n"
		},
	},
	{
		name: "buildkite", variable: "BUILDKITE", value: "true", jobName: "BUILDKITE_JOB_ID", run: "BUILDKITE_BUILD_ID",
		before: func(title string, _ time.Time) string { return "+++ " + flow.Clean(title, 200) + "\n" }, // an open group
		page:   buildkiteAnnotation,
	},
	{name: "circleci", variable: "CIRCLECI", value: "true", jobName: "CIRCLE_JOB", run: "CIRCLE_WORKFLOW_ID"},
	{
		name: "teamcity", variable: "TEAMCITY_VERSION", jobName: "TEAMCITY_BUILDCONF_NAME", run: "BUILD_NUMBER",
		notice: func(title, text string) string {
			return "##teamcity[message text='" + teamcityValue(title+". "+text) + "' status='WARNING']\n"
		},
	},
	{name: "jenkins", variable: "JENKINS_URL", jobName: "JOB_NAME", run: "BUILD_ID"},
	{name: "ci", variable: "CI"}, // any other
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

// chooseCI is the system that --ci means.
func chooseCI(name string, env func(string) string) ciSystem {
	switch name {
	case "", "auto":
		return detectCI(env)
	case "plain":
		return ciSystem{name: name}
	}
	for _, c := range ciSystems {
		if c.name == name {
			return c
		}
	}
	return ciSystem{}
}

// ciNames are the systems that --ci can name.
func ciNames() []string {
	var names []string
	for _, c := range ciSystems {
		if c.variable != "CI" {
			names = append(names, c.name)
		}
	}
	return append(names, "plain")
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

// githubData and githubProperty escape the parts of a workflow command as the
// runner's parser takes it apart (ActionCommand.cs of actions/runner). It looks
// for :: at the beginning of a line, after white space, and for ##[ anywhere.
func githubData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func githubProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

// azureData escapes the message of a logging command. The agent reads ; and ]
// escaped in messages too, so that a % of ours must not begin an escape:
// https://github.com/microsoft/azure-pipelines-agent/blob/master/docs/design/percentEncoding.md
func azureData(s string) string {
	return strings.NewReplacer("%", "%AZP25", "\r", "%0D", "\n", "%0A").Replace(s)
}

// teamcityValue escapes a value of a service message:
// https://www.jetbrains.com/help/teamcity/service-messages.html#Escaped+Values
func teamcityValue(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString("|n")
		case r == '\r':
			b.WriteString("|r")
		case strings.ContainsRune("|'[]", r):
			b.WriteString("|" + string(r))
		case r < ' ' || r > '~':
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, "|0x%04X", unit)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// gitlabMarker begins or ends a section of the log. Each run needs another
// name: https://docs.gitlab.com/ci/jobs/job_logs/#create-custom-collapsible-sections
func gitlabMarker(which string, at time.Time) string {
	return fmt.Sprintf("\x1b[0Ksection_%s:%d:oidc_device_%d\r\x1b[0K", which, at.Unix(), os.Getpid())
}

// githubSummary adds to the summary of the job, which is shown when the step
// has ended: it tells then what happened.
func githubSummary(_ context.Context, markdown string, _ pageState, _ io.Writer) error {
	path := os.Getenv("GITHUB_STEP_SUMMARY")
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path) // a pipe would hang
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // the write has told
	_, err = f.WriteString(markdown)
	return err
}

// buildkiteAnnotation shows Markdown above the build. The next of the same job
// takes its place.
func buildkiteAnnotation(ctx context.Context, markdown string, state pageState, log io.Writer) error {
	agent, err := exec.LookPath("buildkite-agent")
	if err != nil {
		return nil // not every job has it
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	style := map[pageState]string{pageWaiting: "warning", pageApproved: "success", pageFailed: "error"}[state]
	c := exec.CommandContext(ctx, agent, "annotate", "--style="+style, "--context=oidc-device-"+os.Getenv("BUILDKITE_JOB_ID"))
	c.Env, c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = childEnv(), strings.NewReader(markdown), log, log, time.Second
	if err := c.Run(); err != nil {
		return fmt.Errorf("buildkite-agent annotate: %w", err)
	}
	return nil
}

const (
	isPublic    = "is public"
	maybePublic = "may be public"
)

// githubPublic reads the event that began the run: no variable tells who may
// read the log.
func githubPublic(env func(string) string) string {
	f, err := os.Open(env("GITHUB_EVENT_PATH"))
	if err != nil {
		return maybePublic
	}
	defer f.Close()
	var event struct {
		Repository struct {
			Private    *bool  `json:"private"`
			Visibility string `json:"visibility"`
		} `json:"repository"`
	}
	if json.NewDecoder(io.LimitReader(f, 32<<20)).Decode(&event) != nil {
		return maybePublic
	}
	switch r := event.Repository; {
	case r.Visibility == "public", r.Visibility == "" && r.Private != nil && !*r.Private:
		return isPublic
	case r.Visibility == "" && r.Private == nil:
		return maybePublic
	}
	return ""
}

func gitlabPublic(env func(string) string) string {
	switch env("CI_PROJECT_VISIBILITY") {
	case "public":
		return isPublic
	case "":
		return maybePublic
	}
	return ""
}

// ciText is a prompt in one line.
func ciText(link, code string, complete bool, expires time.Time) string {
	what := "enter the code " + code
	if complete {
		what = "go on only if it shows the code " + code
	}
	return fmt.Sprintf("Open %s in a browser, on any device, and %s. It lasts until %s. Approve it only if you started this job yourself.",
		link, what, expires.UTC().Format("15:04:05 MST"))
}

// ciMarkdown is a prompt for a page. Whatever is not ours is in entities, which
// neither Markdown nor HTML takes for anything but text.
func ciMarkdown(title, link, code string, complete bool, expires time.Time) string {
	what := "and enter this code:"
	if complete {
		what = "and go on only if it shows this code:"
	}
	return fmt.Sprintf("### %s\n\nOpen <a href=\"%s\">%s</a> in a browser, on any device, %s\n\n<pre><code>%s</code></pre>\n\n"+
		"The code lasts until %s. Approve it only if you started this job yourself.\n\n",
		entities(title), entities(link), entities(link), what, entities(code), expires.UTC().Format("2006-01-02 15:04:05 MST"))
}

var ciOutcome = map[pageState]string{
	pageApproved: "The login was approved; its code is used up.\n\n",
	pageFailed:   "The login was not approved; its code is of no use any more.\n\n",
}

// entities leaves letters, digits and spaces alone.
func entities(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == ' ' || unicode.IsLetter(r) || unicode.IsDigit(r) {
			b.WriteRune(r)
		} else {
			b.WriteString("&#" + strconv.Itoa(int(r)) + ";")
		}
	}
	return b.String()
}
