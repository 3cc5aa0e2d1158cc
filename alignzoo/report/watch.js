// Ask now and then whether there is anything new; a server that is gone is no error.
const watching = document.querySelector("#watching");
setInterval(async () => {
  try {
    const reply = await fetch("/version", { cache: "no-store" });
    const version = (await reply.text()).trim();
    if (version !== watching.dataset.version) location.reload();
  } catch {
    watching.textContent = "The command that served this page has ended.";
  }
}, 2000);
