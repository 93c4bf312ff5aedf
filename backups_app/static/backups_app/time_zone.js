/* Tells the server the browser's time zone, for the times on the next page that is opened. Works together
   with backups_app.middleware.TimeZoneMiddleware; without it the cookie has no effect. */
"use strict";

(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
  if (!/^[A-Za-z0-9_+-]+(\/[A-Za-z0-9_+-]+)*$/.test(zone)) {
    return;
  }
  const cookie = `walsafe_time_zone=${zone}`;
  if (document.cookie.split("; ").includes(cookie)) {
    return;
  }
  const isSecure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${cookie}; Path=/; Max-Age=31536000; SameSite=Lax${isSecure}`;
})();
