package issuer

import (
	"bytes"
	"html/template"
	"net/http"
	"net/url"
)

// page is where the person goes (RFC 8628 section 3.3). There is no sign-in:
// the User of the Behaviour is signed in already.
func (is *Issuer) page(r *http.Request) answer {
	view := pageView{Issuer: is.URL(), Action: is.prefix + is.paths().page, Code: r.Form.Get("user_code"), User: is.behaviour.User.Username, CanDeny: is.shape != Dex}
	status := http.StatusOK
	c := is.pending(view.Code)
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
		status, view.Title, view.Text = http.StatusMethodNotAllowed, "Not possible", "This page takes GET and POST."
	case view.Code == "" && r.Method != http.MethodPost:
		view.Title, view.Ask = "Connect a device", true
	case c == nil:
		status, view.Title, view.Text, view.Ask = http.StatusNotFound, "Connect a device", "There is no login waiting for this code. Codes expire, and each works once.", true
	case r.Method != http.MethodPost:
		view.Title, view.Confirm = "Approve this sign-in?", true
		view.Code, view.Client, view.Scopes = c.user, c.client, scopes(c.scope)
	case r.PostForm.Get("action") == "approve":
		is.approve(c)
		view.Title, view.Text = "Approved", "You can close this window and go back to the device."
	case r.PostForm.Get("action") == "deny" && view.CanDeny:
		c.state = denied
		view.Title, view.Text = "Denied", "The device was not signed in. You can close this window."
	default:
		status, view.Title, view.Text = http.StatusBadRequest, "Not possible", "Choose Approve or Deny."
	}
	if u, err := url.Parse(is.base); err == nil {
		view.Host = u.Host
	}
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, view); err != nil {
		panic("issuer: " + err.Error())
	}
	return answer{status: status, page: out.Bytes(), header: noStore()}
}

type pageView struct {
	Issuer, Host, Action, Title, Text, Code, Client, User string
	Scopes                                                []string
	Ask, Confirm, CanDeny                                 bool
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} – {{.Host}}</title>
<style>
  :root { color-scheme: light dark }
  body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; padding: 12vh 1rem 2rem }
  main { max-width: 26rem; margin: auto; padding: 1.5rem 2rem 2rem; border: 1px solid #8886; border-radius: .75rem }
  h1 { font-size: 1.4rem; margin: 0 0 .75rem }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 1rem 0 }
  dt { opacity: .7 }
  dd { margin: 0; overflow-wrap: anywhere }
  .code { font: 600 1.6rem/1.2 ui-monospace, monospace; letter-spacing: .1em }
  input, button { font: inherit; padding: .6rem 1rem; border: 1px solid #8888; border-radius: .5rem }
  input { width: 100%; box-sizing: border-box; margin: .25rem 0 1rem; text-transform: uppercase }
  button { cursor: pointer; margin-right: .5rem }
  .main { background: #0b57d0; border-color: #0b57d0; color: #fff }
  .issuer { font-size: .85rem; opacity: .7; margin: 1.5rem 0 0; overflow-wrap: anywhere }
</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
{{- with .Text}}
<p role="status">{{.}}</p>
{{- end}}
{{- if .Confirm}}
<p class="code">{{.Code}}</p>
<p>Does your device show this very code, and did you start this sign-in yourself? If not, deny it.</p>
<dl>
  <dt>Client</dt><dd>{{.Client}}</dd>
  <dt>Signs in as</dt><dd>{{.User}}</dd>
  <dt>Asks for</dt><dd>{{range $i, $s := .Scopes}}{{if $i}}, {{end}}{{$s}}{{else}}nothing in particular{{end}}</dd>
</dl>
<form method="post" action="{{.Action}}">
  <input type="hidden" name="user_code" value="{{.Code}}">
  <button class="main" name="action" value="approve">Approve</button>
  {{- if .CanDeny}}
  <button name="action" value="deny">Deny</button>
  {{- end}}
</form>
{{- end}}
{{- if .Ask}}
<form method="get" action="{{.Action}}">
  <label for="user_code">Code that the device shows</label>
  <input id="user_code" name="user_code" value="{{.Code}}" autocomplete="off" autofocus required>
  <button class="main">Continue</button>
</form>
{{- end}}
<p class="issuer">{{.Issuer}}</p>
</main>
</body>
</html>
`))
