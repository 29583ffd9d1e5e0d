package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

const testLink = "https://idp.example.com/realms/production/device?user_code=WDJB-MJHT"

// A reader of QR codes reads the link off what the terminal shows: with colours,
// and without them on a dark and on a light terminal.
func TestQRCodeIsRead(t *testing.T) {
	zbar, err := exec.LookPath("zbarimg")
	if err != nil {
		if os.Getenv("TEST_IN_CI") != "" {
			t.Fatal("no zbarimg: install zbar-tools")
		}
		t.Skip("no zbarimg: install zbar-tools")
	}
	for name, dark := range map[string]bool{"colours": false, "a dark terminal": true} {
		lines, err := qrLines(testLink, !dark)
		if err != nil {
			t.Fatal(err)
		}
		var image bytes.Buffer
		const scale = 8
		var rows [][]byte
		for _, l := range lines {
			l = strings.NewReplacer("\x1b[30;107m", "", "\x1b[0m", "").Replace(l)
			var top, bottom []byte
			for _, r := range l {
				ink := map[rune][2]bool{'▀': {true, false}, '▄': {false, true}, '█': {true, true}, ' ': {}}[r]
				for i, half := range []*[]byte{&top, &bottom} {
					pixel := byte(255)
					if ink[i] != dark { // ink is black on white, or light on a dark ground
						pixel = 0
					}
					*half = append(*half, bytes.Repeat([]byte{pixel}, scale)...)
				}
			}
			rows = append(rows, top, bottom)
		}
		fmt.Fprintf(&image, "P5 %d %d 255\n", len(rows[0]), len(rows)*scale)
		for _, r := range rows {
			for range scale {
				image.Write(r)
			}
		}
		path := filepath.Join(t.TempDir(), "qr.pgm")
		if err := os.WriteFile(path, image.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(zbar, "-q", "--raw", path).Output()
		if strings.TrimSpace(string(out)) != testLink {
			t.Errorf("%s: read %q, %v", name, out, err)
		}
	}
}

func TestQRFits(t *testing.T) {
	at := func(columns, rows int) screen {
		return screen{terminal: true, inPlace: true, blocks: true, size: func() (int, int) { return columns, rows }}
	}
	for _, tt := range []struct {
		name   string
		screen screen
		want   string
		ci     bool
		shown  bool
	}{
		{"a large terminal", at(200, 50), "auto", false, true},
		{"60 columns", at(60, 50), "auto", false, true},
		{"59 columns", at(59, 50), "auto", false, false},
		{"24 lines", at(80, 24), "auto", false, false},
		{"24 lines, always", at(80, 24), "always", false, true},
		{"never", at(200, 50), "never", false, false},
		{"CI", at(200, 50), "auto", true, false},
		{"no terminal", screen{}, "auto", false, false},
		{"no terminal, always", screen{}, "always", false, true},
		{"no UTF-8", screen{terminal: true, inPlace: true, size: at(200, 50).size}, "auto", false, false},
	} {
		if got := tt.screen.qr(tt.want, testLink, tt.ci) != nil; got != tt.shown {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if at(200, 50).qr("always", "https://a.example/"+strings.Repeat("x", 4000), false) != nil {
		t.Error("a link that no code holds")
	}
}

// No line of the prompt is broken by the terminal, but for a link that must be
// copied whole: it stands alone, without a prefix.
func TestPromptFits(t *testing.T) {
	for _, columns := range []int{40, 60, 80, 200} {
		for _, colour := range []bool{false, true} {
			var out bytes.Buffer
			u := &ui{out: &out, screen: screen{terminal: true, colour: colour, size: func() (int, int) { return columns, 24 }}}
			u.prompt(&options{issuer: "https://idp.example.com/realms/production", clientID: "kubectl", qr: "auto"}, cache.Prompt{
				VerificationURI: "https://idp.example.com/realms/production/device", VerificationURIComplete: testLink, UserCode: "WDJB-MJHT", ExpiresAt: time.Now().Add(10 * time.Minute),
				Scopes: []string{"openid", "groups", "offline_access"},
			})
			plain := strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "").Replace(out.String())
			if strings.Contains(plain, "\x1b") || colour != (plain != out.String()) {
				t.Errorf("%d columns, colour %v: %q", columns, colour, out.String())
			}
			for line := range strings.SplitSeq(plain, "\n") {
				if len([]rune(line)) > columns && line != testLink && !strings.HasSuffix(line, "/device") {
					t.Errorf("%d columns: %q", columns, line)
				}
				if len(line) > columns && strings.HasPrefix(line, prefix) && strings.Contains(line, testLink) {
					t.Errorf("%d columns: the link stands beside the prefix: %q", columns, line)
				}
			}
			if !strings.Contains(plain, "\n"+prefix+"    WDJB-MJHT\n") || !strings.Contains(plain, testLink+"\n") {
				t.Errorf("%d columns: no code, or no link of its own:\n%s", columns, plain)
			}
		}
	}
}

// envOf is an environment of pairs NAME=VALUE.
func envOf(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if n, value, _ := strings.Cut(p, "="); n == name {
				return value
			}
		}
		return ""
	}
}

func TestScreen(t *testing.T) {
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if s := screenOf(pipe, os.Getenv); s.terminal || s.colour || s.columns() != 0 {
		t.Error("a pipe is taken for a terminal")
	}
	everything := screen{terminal: true, inPlace: true, colour: true, blocks: true}
	for _, tt := range []struct {
		name              string
		terminal, escapes bool
		goos              string
		env               []string
		want              screen
	}{
		{"a terminal", true, true, "linux", []string{"TERM=xterm", "LANG=C.UTF-8"}, everything},
		{"no terminal", false, true, "linux", []string{"TERM=xterm", "LANG=C.UTF-8"}, screen{}},
		{"an old console", true, false, "windows", nil, screen{terminal: true}},
		{"a console", true, true, "windows", nil, everything},
		{"TERM=dumb", true, true, "linux", []string{"TERM=dumb", "LANG=C.UTF-8"}, screen{terminal: true}},
		{"NO_COLOR", true, true, "linux", []string{"NO_COLOR=1", "LANG=C.UTF-8"}, screen{terminal: true, inPlace: true, blocks: true}},
		// https://no-color.org: when present and not an empty string
		{"NO_COLOR=", true, true, "linux", []string{"NO_COLOR=", "LANG=C.UTF-8"}, everything},
		{"no UTF-8", true, true, "linux", []string{"LANG=C"}, screen{terminal: true, inPlace: true, colour: true}},
	} {
		got := drawnOn(tt.terminal, tt.escapes, tt.goos, envOf(tt.env...))
		if got.terminal != tt.want.terminal || got.inPlace != tt.want.inPlace || got.colour != tt.want.colour || got.blocks != tt.want.blocks {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
	for _, tt := range []struct {
		goos string
		env  []string
		want bool
	}{
		{"linux", []string{"LANG=C.UTF-8"}, true},
		{"linux", []string{"LANG=en_US.utf8"}, true},
		{"linux", []string{"LANG=C"}, false},
		{"linux", []string{"LC_ALL=C", "LANG=C.UTF-8"}, false},
		{"linux", []string{"LC_CTYPE=C.UTF-8", "LANG=C"}, true},
		{"linux", nil, false},
		{"darwin", nil, true},
	} {
		if got := speaksUTF8(tt.goos, envOf(tt.env...)); got != tt.want {
			t.Errorf("%s %v: %v", tt.goos, tt.env, got)
		}
	}
}

// What a login meets is said once for each kind, and stays in the countdown.
func TestPollTrouble(t *testing.T) {
	var out bytes.Buffer
	u := &ui{out: &out, screen: screen{terminal: true, inPlace: true, size: func() (int, int) { return 200, 24 }}}
	for range 3 {
		u.pollTrouble(io.ErrUnexpectedEOF)
	}
	u.countdown(time.Now().Add(time.Minute))
	u.pollTrouble(nil)
	u.pollTrouble(nil)
	text := out.String()
	if strings.Count(text, "unexpected EOF") != 1 || !strings.Contains(text, "left; the provider cannot be asked, trying again") || strings.Count(text, "the provider answers again") != 1 {
		t.Errorf("it says:\n%q", text)
	}
}
