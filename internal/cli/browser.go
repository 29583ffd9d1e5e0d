package cli

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

// openBrowser shows the link where a person sits at a graphical session of
// this machine. It is a comfort: whatever fails, the link is on the screen.
func (s *session) openBrowser(p cache.Prompt) {
	command := s.browser(os.Getenv)
	if command == nil {
		return
	}
	link := p.VerificationURI
	if p.VerificationURIComplete != "" {
		link = p.VerificationURIComplete
	}
	// No shell, and the link has been through flow.CheckURL: it begins with
	// http and cannot be an option.
	opener := exec.Command(command[0], append(command[1:], link)...)
	opener.Stdout, opener.Stderr = os.Stderr, os.Stderr // stdout belongs to the answer
	opener.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, envName("oidc-client-secret")+"=") })
	if err := opener.Start(); err != nil {
		s.ui.detail("no browser was opened: %v", err)
		return
	}
	go func() { _ = opener.Wait() }() // its end is its own matter
}

// browser is the program that opens links here, or nil.
func (s *session) browser(env func(string) string) []string {
	switch {
	case s.skipOpenBrowser:
		return nil
	case !s.ui.terminal, env("CI") != "", env("SSH_CONNECTION") != "", env("SSH_TTY") != "", env("SSH_CLIENT") != "":
		return nil
	case s.browserCommand != "":
		return []string{s.browserCommand}
	}
	switch runtime.GOOS {
	case "darwin":
		return []string{"open"}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	if env("DISPLAY") == "" && env("WAYLAND_DISPLAY") == "" {
		return nil
	}
	return []string{"xdg-open"}
}
