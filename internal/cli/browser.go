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
	command := s.browser(runtime.GOOS, os.Getenv, inContainer(os.Getenv, os.Stat), exec.LookPath)
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

// browser is the program that opens links here, or nil. A CI job has nobody to
// look at it, whatever --ci says.
func (s *session) browser(goos string, env func(string) string, container bool, lookPath func(string) (string, error)) []string {
	switch {
	case s.skipOpenBrowser:
		return nil
	case !s.ui.terminal, detectCI(env).name != "", env("SSH_CONNECTION") != "", env("SSH_TTY") != "", env("SSH_CLIENT") != "":
		return nil
	case s.browserCommand != "":
		return []string{s.browserCommand}
	}
	switch goos {
	case "darwin":
		return []string{"open"}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	switch {
	case container:
		return nil // a display may be forwarded; a browser is seldom there
	case env("WSL_DISTRO_NAME") != "":
		if path, err := lookPath("wslview"); err == nil {
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
func inContainer(env func(string) string, stat func(string) (os.FileInfo, error)) bool {
	if env("container") != "" || env("KUBERNETES_SERVICE_HOST") != "" {
		return true
	}
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := stat(mark); err == nil {
			return true
		}
	}
	return false
}
