package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

// ui speaks to people, on stderr. Its methods may be called at once.
type ui struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool // a person sees this
	inPlace  bool // and a line can change in place
	verbose  bool

	held *bytes.Buffer // what is said while it is not nil

	counting bool      // a countdown stands in the last line
	nextLine time.Time // when a countdown elsewhere says its next line
}

func newUI(stderr io.Writer, verbose bool) *ui {
	u := &ui{out: stderr, verbose: verbose}
	if f, ok := stderr.(*os.File); ok {
		u.terminal = term.IsTerminal(int(f.Fd()))
		u.inPlace = u.terminal && os.Getenv("TERM") != "dumb"
	}
	return u
}

func (u *ui) say(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLine()
	var out io.Writer = u.out
	if u.held != nil {
		out = u.held
	}
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintln(out, strings.TrimSuffix(prefix+line, " "))
	}
}

// hold keeps what is said until release.
func (u *ui) hold() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = &bytes.Buffer{}
}

func (u *ui) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held != nil {
		_, _ = u.held.WriteTo(u.out) // as with any other line: there is nobody else to tell
		u.held = nil
	}
}

func (u *ui) warn(format string, args ...any) { u.say("warning: "+format, args...) }

// detail is for --verbose.
func (u *ui) detail(format string, args ...any) {
	if u.verbose {
		u.say(format, args...)
	}
}

// prompt asks a person to approve a login. The texts have been through
// flow.Clean and flow.CheckURL. scopes is nil where they are not known.
func (u *ui) prompt(o *options, p cache.Prompt, scopes []string) {
	what := fmt.Sprintf("client %s", o.clientID)
	if scopes != nil {
		what += ", scopes " + strings.Join(scopes, " ")
	}
	host := o.issuer
	if parsed, err := url.Parse(o.issuer); err == nil {
		host = parsed.Host
	}
	u.say("Sign in to %s (%s).", host, what)
	if p.VerificationURIComplete != "" {
		u.say("Open this link in a browser, on any device:\n\n    %s\n", p.VerificationURIComplete)
		u.say("and go on only if it shows this code:\n\n    %s\n", p.UserCode)
		u.say("Without that link: enter the code at %s", p.VerificationURI)
	} else {
		u.say("Open this link in a browser, on any device:\n\n    %s\n", p.VerificationURI)
		u.say("and enter this code:\n\n    %s\n", p.UserCode)
	}
	u.say("The code lasts until %s (%s). Approve it only if you started this login yourself.",
		clock(p.ExpiresAt), time.Until(p.ExpiresAt).Round(time.Second))
	u.mu.Lock()
	u.nextLine = time.Now().Add(time.Minute)
	u.mu.Unlock()
}

// countdown says how long a code still lasts: in place on a terminal, a line a
// minute elsewhere, so that a CI system does not take the job for dead.
func (u *ui) countdown(end time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	left := max(time.Until(end), 0).Round(time.Second)
	switch {
	case u.inPlace:
		u.counting = true
		fmt.Fprintf(u.out, "\r%swaiting for the approval, %s left \x1b[K", prefix, left)
	case time.Now().After(u.nextLine):
		u.nextLine = time.Now().Add(time.Minute)
		fmt.Fprintf(u.out, "%swaiting for the approval, %s left\n", prefix, left)
	}
}

// runCountdown counts until stop is called.
func (u *ui) runCountdown(end time.Time) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			u.countdown(end)
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	})
	return func() { close(done); running.Wait(); u.endCountdown() }
}

func (u *ui) endCountdown() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLine()
}

func (u *ui) clearLine() {
	if u.counting {
		fmt.Fprint(u.out, "\r\x1b[K")
		u.counting = false
	}
}
