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

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

// ui speaks to people, on stderr. Its methods may be called at once.
type ui struct {
	mu  sync.Mutex
	out io.Writer
	screen
	verbose bool

	held *bytes.Buffer // what is said while it is not nil

	counting bool      // a countdown stands in the last line
	nextLine time.Time // when a countdown elsewhere says its next line
	// What keeps a login from going on, in short and as it was said last.
	trouble, lastTrouble string
}

func newUI(stderr io.Writer, verbose bool) *ui {
	u := &ui{out: stderr, verbose: verbose}
	if f, ok := stderr.(*os.File); ok {
		u.screen = screenOf(f, os.Getenv)
	}
	return u
}

func (u *ui) say(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLine()
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		for _, part := range wrap(line, u.columns()-len(prefix)) {
			u.line(prefix + part)
		}
	}
}

// show puts something to be copied into a line of its own. Where it does not
// fit beside the prefix it goes without: a terminal that breaks it keeps it
// whole for whoever copies it.
func (u *ui) show(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLine()
	before := prefix + "    "
	if columns := u.columns(); columns > 0 && len(before)+len(text) > columns {
		before = ""
	}
	u.line(prefix)
	u.line(before + u.bold(text))
	u.line(prefix)
}

// whole says a line whose spaces and breaks matter.
func (u *ui) whole(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLine()
	u.line(prefix + text)
}

// raw writes lines that are for a CI system, in one go.
func (u *ui) raw(lines string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLine()
	_, _ = io.WriteString(u.out, lines) // as with any other line: there is nobody else to tell
}

// line wants the mutex held.
func (u *ui) line(text string) {
	var out io.Writer = u.out
	if u.held != nil {
		out = u.held
	}
	fmt.Fprintln(out, strings.TrimRight(text, " "))
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
// flow.Clean and flow.CheckURL.
func (u *ui) prompt(o *options, p cache.Prompt) {
	what := fmt.Sprintf("client %s, scopes %s", o.clientID, strings.Join(p.Scopes, " "))
	host := o.issuer
	if parsed, err := url.Parse(o.issuer); err == nil {
		host = parsed.Host
	}
	link := p.VerificationURI
	if p.VerificationURIComplete != "" {
		link = p.VerificationURIComplete
	}
	u.say("Sign in to %s (%s).", host, what)
	u.say("Open this link in a browser, on any device:")
	u.show(link)
	if lines := u.screen.qr(o.qr, link, detectCI(os.Getenv).name != ""); lines != nil {
		u.mu.Lock()
		for _, l := range lines {
			u.line("  " + l)
		}
		u.line(prefix)
		u.mu.Unlock()
	}
	if p.VerificationURIComplete != "" {
		u.say("and go on only if it shows this code:")
		u.show(p.UserCode)
		u.say("Without that link: enter the code at %s", p.VerificationURI)
	} else {
		u.say("and enter this code:")
		u.show(p.UserCode)
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
		line := fmt.Sprintf("%swaiting for the approval, %s left", prefix, left)
		if u.trouble != "" {
			line += "; " + u.trouble
		}
		if columns := u.columns(); columns > 0 && len(line) >= columns { // a line that breaks does not stay in place
			line = strings.ToValidUTF8(line[:columns-1], "")
		}
		fmt.Fprintf(u.out, "\r%s \x1b[K", line)
	case time.Now().After(u.nextLine):
		u.nextLine = time.Now().Add(time.Minute)
		fmt.Fprintf(u.out, "%swaiting for the approval, %s left\n", prefix, left)
	}
}

// pollTrouble says what a login has met, once for each kind, and keeps it in the
// countdown until nil tells that it is over.
func (u *ui) pollTrouble(err error) {
	u.mu.Lock()
	before := u.trouble
	u.trouble = ""
	if err != nil {
		u.trouble = "the provider cannot be asked, trying again"
	}
	again := err != nil && u.lastTrouble == err.Error()
	if err != nil {
		u.lastTrouble = err.Error()
	}
	u.mu.Unlock()
	switch {
	case err != nil && !again:
		u.warn("%v; trying again", err)
	case err == nil && before != "":
		u.say("the provider answers again")
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
