package cli

import (
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"testing"
)

func TestBrowser(t *testing.T) {
	desktop := []string{"DISPLAY=:0"}
	for _, tt := range []struct {
		name      string
		goos      string // default linux
		env       []string
		container bool
		wslview   bool
		pipe      bool // stderr is no terminal
		skip      bool
		command   string
		want      []string
	}{
		{name: "X", env: desktop, want: []string{"xdg-open"}},
		{name: "Wayland", env: []string{"WAYLAND_DISPLAY=wayland-0"}, want: []string{"xdg-open"}},
		{name: "no display"},
		{name: "a Mac", goos: "darwin", want: []string{"open"}},
		{name: "Windows", goos: "windows", want: []string{"rundll32", "url.dll,FileProtocolHandler"}},
		{name: "FreeBSD", goos: "freebsd", env: desktop, want: []string{"xdg-open"}},
		{name: "a container", env: desktop, container: true},
		{name: "WSL", env: []string{"WSL_DISTRO_NAME=Debian", "DISPLAY=:0"}},
		{name: "WSL with wslview", env: []string{"WSL_DISTRO_NAME=Debian"}, wslview: true, want: []string{"/usr/bin/wslview"}},
		{name: "wslview elsewhere", env: desktop, wslview: true, want: []string{"xdg-open"}},

		{name: "SSH", env: []string{"DISPLAY=:0", "SSH_CONNECTION=1"}},
		{name: "SSH's terminal", env: []string{"DISPLAY=:0", "SSH_TTY=1"}},
		{name: "SSH's client", env: []string{"DISPLAY=:0", "SSH_CLIENT=1"}},
		{name: "SSH to a Mac", goos: "darwin", env: []string{"SSH_CONNECTION=1"}},
		{name: "no terminal", env: desktop, pipe: true},

		// With --ci=none a job keeps its terminal, if it has one.
		{name: "CI", env: []string{"DISPLAY=:0", "CI=true"}},
		{name: "CI=1", env: []string{"DISPLAY=:0", "CI=1"}},
		{name: "CI=false", env: []string{"DISPLAY=:0", "CI=false"}, want: []string{"xdg-open"}},
		{name: "Jenkins", env: []string{"DISPLAY=:0", "JENKINS_URL=https://ci.example.com/"}},
		{name: "TeamCity", env: []string{"DISPLAY=:0", "TEAMCITY_VERSION=2026.1"}},
		{name: "Azure Pipelines", goos: "windows", env: []string{"TF_BUILD=True"}},
		{name: "GitHub on a Mac", goos: "darwin", env: []string{"GITHUB_ACTIONS=true"}},

		{name: "--browser-command", command: "firefox", want: []string{"firefox"}},
		{name: "--browser-command in a container", command: "firefox", container: true, want: []string{"firefox"}},
		{name: "--browser-command in CI", command: "firefox", env: []string{"CI=true"}},
		{name: "--browser-command without a terminal", command: "firefox", pipe: true},
		{name: "--skip-open-browser", env: desktop, skip: true},
		{name: "--skip-open-browser and a command", command: "firefox", skip: true},
	} {
		if tt.goos == "" {
			tt.goos = "linux"
		}
		s := &session{options: &options{skipOpenBrowser: tt.skip, browserCommand: tt.command}, ui: &ui{screen: screen{terminal: !tt.pipe}}}
		lookPath := func(name string) (string, error) {
			if tt.wslview && name == "wslview" {
				return "/usr/bin/wslview", nil
			}
			return "", exec.ErrNotFound
		}
		if got := s.browser(tt.goos, envOf(tt.env...), tt.container, lookPath); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestInContainer(t *testing.T) {
	for mark, want := range map[string]bool{
		"": false, "/.dockerenv": true, "/run/.containerenv": true,
		"container=podman": true, "KUBERNETES_SERVICE_HOST=10.0.0.1": true, "DISPLAY=:0": false,
	} {
		stat := func(path string) (fs.FileInfo, error) {
			if path == mark {
				return nil, nil
			}
			return nil, os.ErrNotExist
		}
		if got := inContainer(envOf(mark), stat); got != want {
			t.Errorf("%q: %v", mark, got)
		}
	}
}
