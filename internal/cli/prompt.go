package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// show asks a person to approve a login, in every form that there is here.
// ended is for the login's end, whatever that is.
func (s *session) show(ctx context.Context, p cache.Prompt) (ended func(error)) {
	title := "Sign in to " + s.issuer
	if u, err := url.Parse(s.issuer); err == nil {
		title = "Sign in to " + u.Host
	}
	link, complete := p.VerificationURI, false
	if p.VerificationURIComplete != "" {
		link, complete = p.VerificationURIComplete, true
	}
	c := s.system
	if c.before != nil {
		s.ui.raw(c.before(title, time.Now()))
	}
	s.ui.prompt(s.options, p)
	if c.notice != nil {
		s.ui.raw(c.notice(title, ciText(link, p.UserCode, complete, p.ExpiresAt)))
	}
	if c.public != nil {
		if is := c.public(os.Getenv); is != "" {
			s.ui.warn("this log %s, so that anybody may see the code. It grants nothing by itself; approve none but that of a job of your own", is)
		}
	}
	stop := s.runPromptCommand(ctx, p, link)
	onPage := c.page != nil && s.page(ctx, ciMarkdown(title, link, p.UserCode, complete, p.ExpiresAt), pageWaiting)
	return func(err error) {
		stop()
		if c.after != nil {
			s.ui.raw(c.after(time.Now()))
		}
		state := pageApproved
		if err != nil {
			state = pageFailed
		}
		if onPage {
			s.page(context.WithoutCancel(ctx), ciOutcome[state], state)
		}
	}
}

func (s *session) page(ctx context.Context, markdown string, state pageState) bool {
	out := &lineWriter{say: s.ui.detail}
	err := s.system.page(ctx, markdown, state, out)
	out.flush()
	if err != nil {
		s.ui.warn("the prompt is only in the log: %v", err)
	}
	return err == nil
}

// runPromptCommand tells the user's program of the prompt. stop ends it, if it
// still runs.
func (s *session) runPromptCommand(ctx context.Context, p cache.Prompt, link string) (stop func()) {
	if s.promptCommand == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	// What it prints may be the code or the link: a CI system must not read
	// commands out of them, so that its lines become lines of ours.
	out := &lineWriter{say: s.ui.say}
	c := exec.CommandContext(ctx, s.promptCommand)
	c.Stdout, c.Stderr, c.WaitDelay = out, out, time.Second
	c.Env = append(childEnv(),
		"OIDC_DEVICE_PROMPT_LINK="+link,
		"OIDC_DEVICE_PROMPT_CODE="+p.UserCode,
		"OIDC_DEVICE_PROMPT_EXPIRES="+p.ExpiresAt.UTC().Format(time.RFC3339),
		"OIDC_DEVICE_PROMPT_ISSUER="+s.issuer,
		"OIDC_DEVICE_PROMPT_CLIENT_ID="+s.clientID)
	if err := c.Start(); err != nil {
		cancel()
		s.ui.warn("--prompt-command cannot be run: %v", err)
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := c.Wait()
		out.flush()
		// ErrWaitDelay: it ended well, and what it started goes on.
		if err != nil && ctx.Err() == nil && !errors.Is(err, exec.ErrWaitDelay) {
			s.ui.warn("--prompt-command failed: %v", err)
		}
	}()
	return func() { cancel(); <-done }
}

// childEnv is our environment without the client secret.
func childEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, envName("oidc-client-secret")+"=") })
}

// maskIn is the one place where a token goes to stderr: as the command that
// makes a CI system hide it in the job's log. It must come before the token.
// Only the system itself may read it, so that it is not written where no job
// runs, whatever --ci says, nor to a file, nor where kubectl runs the plugin: it
// prints no token.
func (s *session) maskIn(stdout io.Writer, e *cache.Entry) {
	mask := s.system.mask
	if mask == nil || s.client != nil || detectCI(os.Getenv).name != s.system.name || isTerminal(stdout) || isRegular(s.ui.out) {
		return
	}
	s.ui.raw(mask(e.Token.Reveal()))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func isRegular(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err != nil || info.Mode().IsRegular()
}

// lineWriter says what another program prints, line by line.
type lineWriter struct {
	say  func(format string, args ...any)
	rest []byte
	said int
}

// mostLines is what another program may say: a log must not be filled by it.
const mostLines = 100

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found && len(w.rest) < 4096 {
			return len(b), nil
		}
		w.rest = rest
		switch w.said++; {
		case w.said <= mostLines:
			w.say("%s", flow.Clean(string(line), 1000))
		case w.said == mostLines+1:
			w.say("(it says more, which is left out)")
		}
	}
}

// flush says a last line that has no end.
func (w *lineWriter) flush() {
	if len(w.rest) > 0 && w.said < mostLines {
		w.say("%s", flow.Clean(string(w.rest), 1000))
		w.rest = nil
	}
}
