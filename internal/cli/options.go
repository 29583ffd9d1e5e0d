package cli

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/secret"
)

// options are the flags of a session.
type options struct {
	issuer, clientID         string
	secret                   secret.String
	secretFile               string
	extraScopes, extraParams []string
	offlineAccess, pkce      string
	useAccessToken           bool
	endpoints                flow.Endpoints
	caFile, caData           string
	insecureSkipTLSVerify    bool
	storage, cacheDir        string
	timeout                  time.Duration
	timeoutSeconds           int
	minValidity              time.Duration
	maxSessionAge            time.Duration
	forceRefresh             bool
	prompt                   string
	skipOpenBrowser          bool
	qr, ci, promptCommand    string
	browserCommand           string
	verbose                  bool
	auditLog                 string
	auditRequired            bool
	noRefreshToken           bool
	maxTokenLifetime         time.Duration
	requiredACR, requiredAMR []string
	exactAudience            bool
	broaderToken             string
	policies                 []policy // see applyPolicies
	given                    *pflag.FlagSet
}

// gave says whether a flag was given, or its variable.
func (o *options) gave(name string) bool { return o.given != nil && o.given.Changed(name) }

// eachOnLine calls f with the name of each flag that stands on the command line.
func (o *options) eachOnLine(f func(name string)) {
	if o.given != nil {
		o.given.Visit(func(flag *pflag.Flag) {
			if flag.Annotations[byVariable] == nil && !flag.Hidden {
				f(flag.Name)
			}
		})
	}
}

// overlay takes over from the command line what may be said beside the name of
// a kubeconfig's entry: how its provider is reached, and where the trail is.
func (o *options) overlay(line *options) {
	o.verbose = line.verbose
	line.eachOnLine(func(name string) {
		switch name {
		case "oidc-client-secret", "oidc-client-secret-file":
			o.secret, o.secretFile = line.secret, line.secretFile
		case "oidc-revocation-endpoint":
			o.endpoints.Revocation = line.endpoints.Revocation
		case "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify":
			o.caFile, o.caData, o.insecureSkipTLSVerify = line.caFile, line.caData, line.insecureSkipTLSVerify
		case "audit-log":
			o.auditLog = line.auditLog
		case "audit-required":
			o.auditRequired = line.auditRequired
		}
	})
}

// only refuses a flag on the command line that means nothing beside what names
// the session: nothing that a person says is passed over.
func (o *options) only(beside string, allowed ...string) (err error) {
	o.eachOnLine(func(name string) {
		if err == nil && name != beside && name != "verbose" && !slices.Contains(allowed, name) {
			err = &usageError{message: fmt.Sprintf("--%s means nothing beside --%s", name, beside)}
		}
	})
	return err
}

// addSessionFlags declares the flags that every command about a session has.
func (o *options) addSessionFlags(c *cobra.Command) {
	f := c.Flags()
	o.given = f
	f.StringVar(&o.issuer, "oidc-issuer-url", "", "issuer, exactly as the provider writes it; https, or http on a loopback address (required)")
	f.StringVar(&o.clientID, "oidc-client-id", "", "client id (required)")
	f.StringVar(&o.secretFile, "oidc-client-secret-file", "", "file that holds the client secret, for a provider that gives one to devices")
	f.Var((*secretFlag)(&o.secret), "oidc-client-secret", "the client secret itself; prefer the file: other users of the machine can read a process's arguments, and kubeconfigs are passed around")
	f.StringSliceVar(&o.extraScopes, "oidc-extra-scope", nil, "scope to ask for beside openid; repeatable, or with commas")
	f.StringVar(&o.offlineAccess, "oidc-offline-access", flow.Auto, "ask for the scope offline_access, which many providers want before they give a refresh token: auto (where discovery lists it), always, never")
	f.StringSliceVar(&o.extraParams, "oidc-auth-request-extra-params", nil, "name=value to send with the device authorization request, such as audience=… or resource=…; repeatable")
	f.StringVar(&o.pkce, "oidc-pkce-method", flow.Auto, "PKCE: auto (S256 where discovery lists it), no, S256")
	f.BoolVar(&o.useAccessToken, "oidc-use-access-token", false, "give Kubernetes the access token in place of the ID token")
	f.StringVar(&o.endpoints.DeviceAuthorization, "oidc-device-authorization-endpoint", "", "URL that overrides discovery")
	f.StringVar(&o.endpoints.Token, "oidc-token-endpoint", "", "URL that overrides discovery. With this, the one above and --oidc-jwks-uri, which --oidc-use-access-token can do without, there is none")
	f.StringVar(&o.endpoints.Revocation, "oidc-revocation-endpoint", "", "URL that overrides discovery")
	f.StringVar(&o.endpoints.JWKS, "oidc-jwks-uri", "", "URL of the provider's keys, overrides discovery")
	f.StringVar(&o.caFile, "certificate-authority", "", "file of certificates to trust for the provider, beside the system's")
	f.StringVar(&o.caData, "certificate-authority-data", "", "the same, base64-encoded")
	f.BoolVar(&o.insecureSkipTLSVerify, "insecure-skip-tls-verify", false, "do not verify the provider's certificate: whoever is in between can then take the tokens")
	f.StringVar(&o.storage, "token-cache-storage", "disk", "where the tokens are kept: disk (a file that only you can read), keyring (of the system: Secret Service, Keychain, Credential Manager), none")
	f.StringVar(&o.cacheDir, "token-cache-dir", cache.DefaultDir(), "folder of the sessions")
	o.addAuditFlags(c)
	f.BoolVarP(&o.verbose, "verbose", "v", false, "say on stderr what is done, each request and its duration; holds no secret")
}

func (o *options) addAuditFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.auditLog, "audit-log", defaultTrail(), "file that gets a line of JSON for each login, renewal and revocation; none for no file")
	c.Flags().BoolVar(&o.auditRequired, "audit-required", false, "do nothing that the audit log cannot record")
}

// addTokenFlags declares those of the commands that get a token.
func (o *options) addTokenFlags(c *cobra.Command) {
	f := c.Flags()
	f.DurationVar(&o.timeout, "authentication-timeout", 0, "the longest that a login may take, such as 3m; at most, and by default, as long as the code lasts")
	f.IntVar(&o.timeoutSeconds, "authentication-timeout-sec", 0, "the same in seconds")
	f.DurationVar(&o.minValidity, "min-validity", 30*time.Second, "renew a token that has less than this left; at most half of the token's lifetime counts")
	f.DurationVar(&o.maxSessionAge, "max-session-age", 0, "after this long since a person approved the login, ask for a new one (default none)")
	f.BoolVar(&o.noRefreshToken, "no-refresh-token", false, "neither ask for a refresh token nor keep one: each token's end is a new login")
	f.DurationVar(&o.maxTokenLifetime, "max-token-lifetime", 0, "a token that lasts longer is broader than it should be (default none)")
	f.StringSliceVar(&o.requiredACR, "required-acr", nil, "refuse a token whose acr is none of these; repeatable")
	f.StringSliceVar(&o.requiredAMR, "required-amr", nil, "refuse a token whose amr lacks one of these, such as mfa; repeatable")
	f.BoolVar(&o.exactAudience, "exact-audience", false, "refuse a token that is for anybody but this client")
	f.StringVar(&o.broaderToken, "broader-token", "warn", "what becomes of a token with scopes that nobody asked for, several audiences or too long a life: warn, refuse. Like a policy file, this guards you against mistakes; it is no boundary against whoever writes the flags")
	f.BoolVar(&o.skipOpenBrowser, "skip-open-browser", false, "never open a browser; without it, one is opened only at a graphical session of this machine, not over SSH or in CI")
	f.StringVar(&o.qr, "qr", "auto", "show the link as a QR code too: auto (on a terminal that has room for it, not in CI), always, never")
	f.StringVar(&o.promptCommand, "prompt-command", "", "program to run at a prompt, without arguments; $OIDC_DEVICE_PROMPT_LINK, _CODE, _EXPIRES, _ISSUER and _CLIENT_ID tell it what to pass on. Its failure is only a warning")
	f.StringVar(&o.ci, "ci", "auto", "the CI system that shows the prompt in its own way beside the plain lines: auto (by its variables), none, "+strings.Join(ciNames(), ", ")+". GitHub Actions, where it is found, is told of each token that goes to a stdout which is no terminal, so that it hides it in the log: ::add-mask:: with the token goes to stderr first, unless that is a file. It is the one exception from no token on stderr; none ends it")
	f.StringVar(&o.browserCommand, "browser-command", "", "program that opens the link, given as its one argument")
	f.StringVar(&o.prompt, "prompt", "auto", "whether a login may be started where no usable token exists: auto (not soon after one that was not approved), always, never")
}

// addUnusedTokenFlags makes a command take the arguments of a kubeconfig as they
// stand there, though it has no use for some.
func (o *options) addUnusedTokenFlags(c *cobra.Command) {
	unused := &cobra.Command{}
	o.addTokenFlags(unused)
	unused.Flags().VisitAll(func(f *pflag.Flag) {
		f.Hidden = true
		c.Flags().AddFlag(f)
	})
}

// check finds what is wrong before anything is contacted.
func (o *options) check() error {
	usage := func(format string, args ...any) error { return &usageError{message: fmt.Sprintf(format, args...)} }
	switch {
	case o.issuer == "":
		return usage("--oidc-issuer-url is missing")
	case o.clientID == "":
		return usage("--oidc-client-id is missing")
	case !o.secret.Empty() && o.secretFile != "":
		return usage("--oidc-client-secret and --oidc-client-secret-file contradict each other: give one")
	case o.timeout != 0 && o.timeoutSeconds != 0:
		return usage("--authentication-timeout and --authentication-timeout-sec contradict each other: give one")
	case o.timeout < 0, o.timeoutSeconds < 0, o.minValidity < 0, o.maxSessionAge < 0:
		return usage("a duration is negative")
	case o.insecureSkipTLSVerify && (o.caFile != "" || o.caData != ""):
		return usage("--insecure-skip-tls-verify contradicts --certificate-authority: give one")
	case o.forceRefresh && o.storage == "none":
		return usage("--force-refresh has nothing to renew with --token-cache-storage=none")
	case o.maxTokenLifetime < 0:
		return usage("a duration is negative")
	case o.noRefreshToken && o.offlineAccess == flow.Always:
		return usage("--no-refresh-token and --oidc-offline-access=always contradict each other: give one")
	case o.auditRequired && o.auditLog == "none":
		return usage("--audit-required and --audit-log=none contradict each other: give one")
	case o.auditLog == "":
		return usage("--audit-log is empty: give a file, or none")
	case o.cacheDir == "":
		return usage("--token-cache-dir is empty")
	}
	for _, f := range []struct{ flag, value string }{
		{"oidc-offline-access", o.offlineAccess}, {"oidc-pkce-method", o.pkce}, {"token-cache-storage", o.storage},
		{"prompt", o.prompt}, {"qr", o.qr}, {"ci", o.ci}, {"broader-token", o.broaderToken},
	} {
		if known := choices(f.flag); f.value != "" && !slices.Contains(known, f.value) {
			return usage("--%s=%s is none of: %s", f.flag, flow.Clean(f.value, 60), strings.Join(known, ", "))
		}
	}
	for _, u := range []struct{ flag, value string }{
		{"oidc-issuer-url", o.issuer},
		{"oidc-device-authorization-endpoint", o.endpoints.DeviceAuthorization},
		{"oidc-token-endpoint", o.endpoints.Token},
		{"oidc-revocation-endpoint", o.endpoints.Revocation},
		{"oidc-jwks-uri", o.endpoints.JWKS},
	} {
		if u.value == "" {
			continue
		}
		if err := flow.CheckURL(u.value); err != nil {
			return usage("--%s: %v", u.flag, err)
		}
	}
	// OpenID Connect Core section 2: no query, no fragment.
	if strings.ContainsAny(o.issuer, "?#") {
		return usage("--oidc-issuer-url has a query or a fragment; an issuer has none")
	}
	seen := map[string]bool{}
	for _, p := range o.extraParams {
		name, value, ok := strings.Cut(p, "=")
		// RFC 6749 section 3.1; RFC 8707 section 2 for those that may repeat.
		switch repeats := name == "resource" || name == "audience"; {
		case !ok || name == "" || value == "":
			return usage("--oidc-auth-request-extra-params wants name=value")
		case seen[name] && !repeats:
			return usage("--oidc-auth-request-extra-params has %s more than once, which only resource and audience may be", flow.Clean(name, 40))
		}
		seen[name] = true
		if slices.Contains([]string{"client_id", "client_secret", "scope", "code_challenge", "code_challenge_method"}, name) {
			return usage("--oidc-auth-request-extra-params cannot set %s: it has a flag of its own", name)
		}
	}
	return nil
}

// choices are the values of a flag that has few.
func choices(flag string) []string {
	switch flag {
	case "oidc-offline-access", "prompt", "qr":
		return []string{"auto", "always", "never"}
	case "oidc-pkce-method":
		return []string{"auto", "no", "S256"}
	case "token-cache-storage":
		return []string{"disk", "keyring", "none"}
	case "broader-token":
		return []string{"warn", "refuse"}
	case "ci":
		return append([]string{"auto", "none"}, ciNames()...)
	}
	return nil
}

// outputs are the values of --output in a command.
func outputs(command string) []string {
	switch command {
	case "get-token":
		return []string{"exec-credential", "token"}
	case "status":
		return []string{"table", "wide", "json", "yaml"}
	case "doctor":
		return []string{"table", "json"}
	case "setup":
		return append([]string{"all"}, sections[:4]...)
	}
	return nil
}

// checkOutput is for --output. A variable may mean it for another command: what
// this one does not know is then passed over.
func checkOutput(c *cobra.Command, output *string) error {
	known := outputs(c.Name())
	f := c.Flags().Lookup("output")
	switch {
	case slices.Contains(known, *output):
		return nil
	case f.Annotations[byVariable] != nil:
		*output = f.DefValue
		return nil
	}
	return &usageError{message: "--output is none of: " + strings.Join(known, ", ")}
}

// key names the session. It needs no network: what discovery says is not part
// of it. Nor is the revocation endpoint, which a person may find out only
// when the session is to be ended.
func (o *options) key() cache.Key {
	k := cache.Key{
		Issuer: o.issuer, ClientID: o.clientID, AccessToken: o.useAccessToken,
		Scopes: append([]string{"openid"}, o.extraScopes...), ExtraParams: o.extraParams,
	}
	if o.offlineAccess == flow.Always {
		k.Scopes = append(k.Scopes, "offline_access")
	}
	for name, value := range map[string]string{
		"device_authorization": o.endpoints.DeviceAuthorization, "token": o.endpoints.Token, "jwks": o.endpoints.JWKS,
	} {
		if value != "" {
			if k.Endpoints == nil {
				k.Endpoints = map[string]string{}
			}
			k.Endpoints[name] = value
		}
	}
	return k
}

// flowConfig reads the files that the flags name; it is off the hot path.
func (o *options) flowConfig() (flow.Config, error) {
	config := flow.Config{
		Issuer: o.issuer, ClientID: o.clientID, Scopes: o.extraScopes,
		OfflineAccess: o.offline(), PKCE: o.pkce, AccessToken: o.useAccessToken,
		Endpoints: o.endpoints, ExtraParams: url.Values{},
		UserAgent: "kubectl-oidc_device/" + version(),
	}
	for _, p := range o.extraParams {
		name, value, _ := strings.Cut(p, "=")
		config.ExtraParams.Add(name, value)
	}
	if !o.secret.Empty() || o.secretFile != "" {
		config.ClientSecret = o.clientSecret
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.insecureSkipTLSVerify}
	if o.insecureSkipTLSVerify {
		config.Trust = "unverified"
	}
	pem, err := o.certificates()
	if err != nil {
		return config, err
	}
	if len(pem) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // a system without certificates has the given ones
		}
		if !pool.AppendCertsFromPEM(pem) {
			return config, &usageError{message: "--certificate-authority holds no certificate in PEM form"}
		}
		tlsConfig.RootCAs = pool
		config.Trust = fmt.Sprintf("ca-%x", sha256.Sum256(pem))
	}
	config.HTTP = &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 10 * time.Second,
			// Ten times what a talkative provider sends; Go's own bound is 10 MB.
			MaxResponseHeaderBytes: 256 << 10,
			// Polls are some seconds apart; an old connection through a
			// proxy or after a laptop's sleep is worth nothing.
			IdleConnTimeout: 20 * time.Second,
		},
	}
	return config, nil
}

func (o *options) certificates() (pem []byte, err error) {
	if o.caFile != "" {
		if pem, err = os.ReadFile(o.caFile); err != nil {
			return nil, &usageError{message: fmt.Sprintf("--certificate-authority: %v", err)}
		}
		pem = append(pem, '\n')
	}
	if o.caData != "" {
		data, err := base64.StdEncoding.DecodeString(o.caData)
		if err != nil {
			return nil, &usageError{message: "--certificate-authority-data is not base64"}
		}
		pem = append(pem, data...)
	}
	return pem, nil
}

func (o *options) clientSecret() (secret.String, error) {
	if o.secretFile == "" {
		return o.secret, nil
	}
	b, err := os.ReadFile(o.secretFile)
	if err != nil {
		return secret.String{}, &usageError{message: fmt.Sprintf("--oidc-client-secret-file: %v", err)}
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return secret.String{}, &usageError{message: fmt.Sprintf("--oidc-client-secret-file: %s is empty", o.secretFile)}
	}
	return secret.New(text), nil
}

// secretFlag is a flag whose value is not shown.
type secretFlag secret.String

func (s *secretFlag) Set(value string) error {
	*s = secretFlag(secret.New(value))
	return nil
}
func (s *secretFlag) String() string { return "" }
func (s *secretFlag) Type() string   { return "string" }

func (o *options) authenticationTimeout() time.Duration {
	return max(o.timeout, time.Duration(o.timeoutSeconds)*time.Second)
}

// commandLine is another command for the same session, to be pasted: the flags
// that were given and that it knows, but no secret and none of without.
func (o *options) commandLine(name string, without ...string) string {
	command := newCommand(name)
	line := []string{"kubectl", "oidc-device", name}
	o.given.Visit(func(f *pflag.Flag) {
		if known := command.Flags().Lookup(f.Name); known == nil || known.Hidden || f.Name == "prompt" || f.Name == "oidc-client-secret" || f.Name == "verbose" || slices.Contains(without, f.Name) {
			return
		}
		if f.Value.Type() == "bool" && f.Value.String() == "true" {
			line = append(line, "--"+f.Name)
			return
		}
		line = append(line, shellQuote("--"+f.Name+"="+strings.Join(flagValues(f), ",")))
	})
	return strings.Join(line, " ")
}

// flagValues are the values of a flag, each in the form in which the flag reads
// it again.
func flagValues(f *pflag.Flag) []string {
	slice, ok := f.Value.(pflag.SliceValue)
	if !ok {
		return []string{f.Value.String()}
	}
	values := slice.GetSlice()
	for i, v := range values {
		if strings.ContainsAny(v, ",\"\n") { // comma-separated, as in CSV
			values[i] = `"` + strings.ReplaceAll(v, `"`, `""`) + `"`
		}
	}
	return values
}

func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=.,:/@%+", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
