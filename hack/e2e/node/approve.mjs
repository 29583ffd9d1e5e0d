// Approves a login in a browser, as a person would.
//
//   node approve.mjs LINK CODE   (CHROMIUM: the browser's program)
//
// Exits 0 when the provider says that it is done.
import { chromium } from 'playwright-core';

const [link, code] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  // The pages ask for a font from the Internet; nothing here may leave the machine.
  await context.route((url) => url.hostname !== new URL(link).hostname, (route) => route.abort());
  const page = await context.newPage();
  page.setDefaultTimeout(20000);

  await page.goto(link);
  const confirm = page.getByRole('button', { name: 'Continue' });
  await confirm.waitFor(); // the page with the code posts itself first
  const shown = (await page.locator('code').innerText()).trim();
  if (shown !== code) throw new Error(`the page shows the code ${shown}, kubectl ${code}`);
  await confirm.click();

  await page.getByPlaceholder('Enter any login').fill('alice');
  await page.getByPlaceholder('and password').fill('any');
  await page.getByRole('button', { name: 'Sign-in' }).click();

  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByText('Sign-in Success').waitFor();
  console.log('approved');
} finally {
  await browser.close();
}
