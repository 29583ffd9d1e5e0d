package cli

import (
	"os"
	"os/exec"
	"runtime"

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
	opener.Env = childEnv()
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
	switch {
	case inContainer(env):
		return nil // a display may be forwarded; a browser is seldom there
	case env("WSL_DISTRO_NAME") != "":
		if path, err := exec.LookPath("wslview"); err == nil {
			return []string{path}
		}
		return nil
	case env("DISPLAY") == "" && env("WAYLAND_DISPLAY") == "":
		return nil
	}
	return []string{"xdg-open"}
}

// inContainer looks for what Docker, Podman, systemd-nspawn and Kubernetes leave
// in theirs.
func inContainer(env func(string) string) bool {
	if env("container") != "" || env("KUBERNETES_SERVICE_HOST") != "" {
		return true
	}
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}
