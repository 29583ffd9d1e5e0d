package cli

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

// Where there is no terminal a login that waits says a line a minute, the first
// one a minute after the prompt.
func TestALineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		u := &ui{out: &out}
		end := time.Now().Add(10 * time.Minute)
		u.prompt(&options{issuer: "https://idp.example.com", clientID: "kubectl", qr: "never"}, cache.Prompt{
			VerificationURI: "https://idp.example.com/device", UserCode: "WDJB-MJHT", ExpiresAt: end, Scopes: []string{"openid"},
		})
		stop := u.runCountdown(end)
		time.Sleep(4*time.Minute + 30*time.Second)
		stop()
		var lines []string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "waiting") {
				lines = append(lines, line)
			}
		}
		// A tick is a second, and one that falls on the minute is not past it.
		const want = prefix + "waiting for the approval, 8m59s left\n" + prefix + "waiting for the approval, 7m58s left\n" +
			prefix + "waiting for the approval, 6m57s left\n" + prefix + "waiting for the approval, 5m56s left\n"
		if got := strings.Join(lines, ""); got != want {
			t.Errorf("it says\n%s", got)
		}
	})
}
